"""Columns of tables with a meaning: label, split and group. The others are the values of a sample."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.coding import picture_input
from models.errors import InvalidInput, shown
from models.signature import is_required
from models.spec import ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.source import Row, Wanted

LABELS = ("label", "labels", "target", "targets", "class", "y", "value")
SPLITS = ("split",)
GROUPS = ("group",)
SAMPLES = ("inputs", "input", "sample", "samples", "x", "image", "images", "picture", "pictures", "data")


@dataclass(frozen=True, slots=True)
class Meaning:
    """The names of the columns with a meaning; None if there is no such column."""

    label: str
    split: str | None
    group: str | None

    def is_value(self, name: str) -> bool:
        """Return whether a column is part of the sample."""
        return name not in {self.label, self.split, self.group}


def meaning(names: Sequence[str], wanted: Wanted, *, whole: bool = True) -> Meaning:
    """Find the columns by the options, else by their usual names. Raises DatasetError.

    Unless `whole`, the names are those of one row, and other rows may have more.
    """
    inputs, options = wanted.spec.inputs, wanted.options
    label = _named(options.label_column, "label_column", LABELS, names, inputs, whole=whole)
    if label is None:
        listed = ", ".join(shown(name) for name in names[:20])
        raise DatasetError(
            "No label column",
            f"the columns are {listed}; name the column of the answers label or target, or say which one it is with "
            "label_column (--label-column)",
        )
    return Meaning(
        label,
        _named(options.split_column, "split_column", SPLITS, names, inputs, whole=whole),
        _named(options.group_column, "group_column", GROUPS, names, inputs, whole=whole),
    )


def _named(
    chosen: str | None,
    option: str,
    usual: Sequence[str],
    names: Sequence[str],
    inputs: Iterable[str],
    *,
    whole: bool,
) -> str | None:
    if chosen is not None:
        if whole and chosen not in names:
            listed = ", ".join(shown(name) for name in names[:20])
            raise DatasetError("No such column", f"{option} is {shown(chosen)!r}; the columns are {listed}")
        return chosen
    by_name = {name.strip().lower(): name for name in reversed(names) if name not in inputs}
    return next((by_name[name] for name in usual if name in by_name), None)


def require_inputs(names: Sequence[str], spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns that are not inputs. Raises DatasetError if a required input has no column."""
    for name, kind in spec.inputs.items():
        if is_required(kind) and name not in names:
            listed = ", ".join(shown(found) for found in names[:20])
            raise DatasetError(
                "Missing column", f"the file has no column {name}, which the model needs; it has {listed}"
            )
    return tuple(name for name in names if name not in spec.inputs)


def absent_inputs(names: Sequence[str], spec: ModelSpec) -> Iterator[str]:
    """Yield a warning if inputs that may be missing have no column."""
    absent = [name for name in spec.inputs if name not in names]
    if absent:
        yield f"inputs of the model without a column, missing in every row: {', '.join(absent[:20])}"


def row_of(number: int, record: Mapping[str, Any], columns: Meaning, spec: ModelSpec) -> Row:
    """Make a row of a record with values of any type."""
    values = {name: value for name, value in record.items() if columns.is_value(name)}
    given = {
        "target": record.get(columns.label),
        "split": record.get(columns.split) if columns.split else None,
        "group": record.get(columns.group) if columns.group else None,
    }
    if spec.inputs:
        return Row(number, _named_sample(values, spec), **given)
    sample = next(iter(values.values()), None)
    if len(values) == 1 and sample is not None and not isinstance(sample, str | int | float):
        return Row(number, _file(sample), **given)
    if len(spec.tensor.shape) == 1 and values:
        return Row(number, list(values.values()), **given)
    fault = InvalidInput("Wrong row", 'a row has the sample under "input" and its answer under "label", nothing else')
    return Row(number, fault=fault, **given)


def _named_sample(values: Mapping[str, Any], spec: ModelSpec) -> Any:
    """Return the sample of a model with named inputs; one under "inputs" is taken as well."""
    if len(values) == 1 and not values.keys() & spec.inputs.keys():
        ((name, value),) = values.items()
        if name.strip().lower() in SAMPLES:
            value = _file(value)
            picture = picture_input(spec)
            return {picture: value} if picture and isinstance(value, bytes) else value
    return {name: _file(value) for name, value in values.items()}


def _file(value: Any) -> Any:
    """Return the bytes of a picture as Hugging Face's datasets store it: {"bytes": ..., "path": ...}."""
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return value["bytes"]
    return value
