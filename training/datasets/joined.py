"""Join the good rows of a file with those of the parent: labels, duplicates, splits."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.dataset_manifest import Manifest
from models.spec import Array
from training.datasets import splits
from training.datasets.errors import DatasetError
from training.datasets.judge import Good
from training.datasets.version import Index

MOST_ROWS = 20_000_000  # of a file
_MOST_LABELS = 10_000
_MOST_NAMES = 1_000_000  # characters of all labels: each list of versions has them


@dataclass(slots=True)
class KeptRows:
    """Fields of the good rows of a file, collected until its end."""

    digests: bytearray = field(default_factory=bytearray)
    draws: "array[int]" = field(default_factory=lambda: array("Q"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    own: bytearray = field(default_factory=bytearray)
    known: bytearray = field(default_factory=bytearray)
    labels: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    names: dict[str, int] = field(default_factory=dict)
    characters: int = 0  # of the names
    width: int = 0

    def add(self, good: Good, *, in_training: bool) -> None:
        """Keep a row. Raises DatasetError for too many labels, and values of different lengths."""
        self.digests += good.digest
        self.draws.append(splits.draw(good.digest, good.group))
        self.numbers.append(good.row.number)
        self.own.append(splits.UNSET if good.split is None else splits.SPLITS.index(good.split))
        self.known.append(in_training)
        if isinstance(good.target, str):
            if good.target not in self.names:
                self.characters += len(good.target)
            self.labels.append(self.names.setdefault(good.target, len(self.names)))
            if len(self.names) > _MOST_LABELS or self.characters > _MOST_NAMES:
                raise DatasetError(
                    "Too many labels",
                    f"there are more than {_MOST_LABELS:,} different labels, or {_MOST_NAMES:,} characters of them: "
                    "is it the right column?",
                )
        else:
            self.width = self.width or len(good.target)
            if len(good.target) != self.width:
                raise DatasetError(
                    "Wrong value", f"row {good.row.number} has {len(good.target)} values, others {self.width}"
                )
            self.values.extend(good.target)

    def targets(self, known: Sequence[str]) -> Array:
        """Return the targets: positions in `known`, int64 (N,), or values, float64 (N, k)."""
        if not known:
            return np.frombuffer(self.values, np.float64).reshape(-1, max(1, self.width))
        places = {label: place for place, label in enumerate(known)}
        moved = np.array([places[label] for label in self.names], np.int64)
        return moved[np.frombuffer(self.labels, np.int64)] if len(self.labels) else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The rows of a version: first the parent's, then the new ones. `conflicts` are rows of content that was there
    before with another target; like duplicates they are left out.
    """

    index: Index
    inherited: int
    duplicates: int
    conflicts: Sequence[int]


def too_many_rows() -> DatasetError:
    """Return the error for a file of more than MOST_ROWS rows."""
    return DatasetError("Too many rows", f"a version takes {MOST_ROWS:,} rows of a file: send it in parts")


def all_labels(fixed: Sequence[str] | None, old: Sequence[str], rows: KeptRows) -> list[str]:
    """Return the labels of a version: the model's, if they are fixed, else those of the parent and of the rows."""
    if fixed is not None:
        return list(fixed)
    return sorted({*old, *rows.names}, key=_order)


def _order(label: str) -> tuple[int, str]:
    """Sort whole numbers by their value, and before texts."""
    return (int(label), "") if label.isascii() and label.isdigit() and len(label) < 19 else (2**62, label)


def no_rows() -> Index:
    """Return the index of a version without rows: in place of a parent."""
    return Index(
        digests=np.empty((0, 32), np.uint8),
        splits=np.empty(0, np.uint8),
        targets=np.empty(0, np.int64),
        sources=np.empty(0, np.uint16),
        numbers=np.empty(0, np.int64),
    )


def joined(parent: Manifest | None, old: Index, rows: KeptRows, labels: Sequence[str]) -> Joined:
    """Append new rows to those of the parent. Raises DatasetError if their targets do not go together."""
    digests = np.frombuffer(rows.digests, np.uint8).reshape(-1, 32)
    if len(old):
        digests = np.concatenate([old.digests, digests])
    targets = _targets(parent, old, rows, labels)
    firsts = splits.first_of_each(digests)
    other = targets != targets[firsts]
    differ = (other if other.ndim == 1 else other.any(axis=1))[len(old) :]
    new = (firsts == np.arange(len(firsts)))[len(old) :]
    found = splits.assigned(
        np.frombuffer(rows.own, np.uint8)[new],
        np.frombuffer(rows.draws, np.uint64)[new],
        np.frombuffer(rows.known, np.uint8)[new].astype(bool),
        np.isin(np.arange(len(splits.SPLITS)), old.splits),
    )
    numbers = np.frombuffer(rows.numbers, np.int64)
    kept = np.concatenate([np.ones(len(old), bool), new])
    place = 0 if parent is None else len(parent.originals)
    index = Index(
        digests=digests[kept],
        splits=np.concatenate([old.splits, found]),
        targets=targets[kept],
        sources=np.concatenate([old.sources, np.full(len(found), place, np.uint16)]),
        numbers=np.concatenate([old.numbers, numbers[new]]),
    )
    return Joined(
        index=index,
        inherited=len(old),
        duplicates=int((~new & ~differ).sum()),
        conflicts=numbers[~new & differ].tolist(),
    )


def _targets(parent: Manifest | None, old: Index, rows: KeptRows, labels: Sequence[str]) -> Array:
    """Return the targets of all rows, with the parent's labels at their new positions."""
    found = rows.targets(labels)
    if parent is None:
        return found
    before = np.asarray(old.targets)
    if not labels:
        if len(found) and before.shape[1:] != found.shape[1:]:
            raise DatasetError("Wrong value", f"a row has {found.shape[1]} values, the parent's {before.shape[1]}")
        return np.concatenate([before, found.reshape(-1, *before.shape[1:])])
    if gone := set(parent.labels) - set(labels):
        raise DatasetError("Unknown label", f"the model no longer has the label {min(gone)!r}, which the parent has")
    moved = np.array([list(labels).index(label) for label in parent.labels], np.int64)
    return np.concatenate([moved[before], found])
