"""Errors of datasets."""

from models.messages import DatasetSummary


class DatasetError(Exception):
    """A file that becomes no dataset version. `title` names the kind of fault, `detail` says how to fix it.

    If too many rows were refused, `summary` counts them.
    """

    def __init__(self, title: str, detail: str, *, summary: DatasetSummary | None = None) -> None:
        super().__init__(f"{title}: {detail}")
        self.title = title
        self.detail = detail
        self.summary = summary
