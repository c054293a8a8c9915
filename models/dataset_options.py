"""Options of a file that becomes a dataset version."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """Columns of a file that have a meaning; None: found by their usual names."""

    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
