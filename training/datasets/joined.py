"""Join the good rows of a file with those of the parent: labels, duplicates, splits."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from models.dataset_manifest import Manifest
from models.spec import Array
from training.datasets import splits
from training.datasets.errors import DatasetError
from training.datasets.judge import Good
from training.datasets.version import Index, read_index

MOST_ROWS = 20_000_000  # of a file
_MOST_LABELS = 10_000
MOST_NAMES = 1_000_000  # characters of all labels: each list of versions has them


@dataclass(slots=True)
class KeptRows:
    """Fields of the good rows of a file, collected until its end."""

    digests: bytearray = field(default_factory=bytearray)
    draws: "array[int]" = field(default_factory=lambda: array("Q"))
    groups: "array[int]" = field(default_factory=lambda: array("Q"))
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
        self.groups.append(0 if good.group is None else self.draws[-1])
        self.numbers.append(good.row.number)
        self.own.append(splits.UNSET if good.split is None else splits.SPLITS.index(good.split))
        self.known.append(in_training)
        if isinstance(good.target, str):
            if good.target not in self.names:
                self.characters += len(good.target)
            self.labels.append(self.names.setdefault(good.target, len(self.names)))
            if len(self.names) > _MOST_LABELS or self.characters > MOST_NAMES:
                raise DatasetError(
                    "Too many labels",
                    f"there are more than {_MOST_LABELS:,} different labels, or {MOST_NAMES:,} characters of them: "
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

    overruled      count of rows that name another split than that which an earlier version gave their content or group
    contradictory  count of rows that name another split than an earlier row of the file with the same content
    """

    index: Index
    inherited: int
    duplicates: int
    conflicts: Sequence[int]
    overruled: int
    contradictory: int


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


def read_kin(folder: Path) -> Index:
    """Map the index of an earlier version of the same name. Raises DatasetError."""
    try:
        return read_index(folder)
    except DatasetError as err:
        raise DatasetError(
            "Missing dataset",
            f"an earlier version of this name, with the SHA-256 {folder.name[:12]}..., decides the splits of its rows, "
            "and its files are missing or damaged: restore them, or delete that version with erase=true",
        ) from err


def joined(
    parent: Manifest | None, old: Index, rows: KeptRows, labels: Sequence[str], kin: Sequence[Path] = ()
) -> Joined:
    """Append new rows to those of the parent. `kin` are folders of other versions, whose contents keep their splits.

    Raises DatasetError if the targets of old and new rows do not go together.
    """
    digests = np.frombuffer(rows.digests, np.uint8).reshape(-1, 32)
    groups = np.frombuffer(rows.groups, np.uint64)
    bound = _bound(digests, groups, old, kin)
    if len(old):
        digests = np.concatenate([old.digests, digests])
    targets = _targets(parent, old, rows, labels)
    firsts = splits.first_of_each(digests)
    other = targets != targets[firsts]
    differ = (other if other.ndim == 1 else other.any(axis=1))[len(old) :]
    new = (firsts == np.arange(len(firsts)))[len(old) :]
    own = np.frombuffer(rows.own, np.uint8)
    found = splits.assigned(
        own[new],
        np.frombuffer(rows.draws, np.uint64)[new],
        np.frombuffer(rows.known, np.uint8)[new].astype(bool),
        np.isin(np.arange(len(splits.SPLITS)), old.splits),
        bound[new],
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
        groups=_groups(old, groups[new]),
    )
    given = index.splits[(np.cumsum(kept) - 1)[firsts[len(old) :]]]  # to each row of the file
    named_first = own[np.maximum(firsts[len(old) :] - len(old), 0)]
    is_free, names = bound == splits.UNSET, own != splits.UNSET
    differs = own != np.where(named_first == splits.UNSET, given, named_first)
    return Joined(
        index=index,
        inherited=len(old),
        duplicates=int((~new & ~differ).sum()),
        conflicts=numbers[~new & differ].tolist(),
        overruled=int((names & ~is_free & (own != given)).sum()),
        contradictory=int((names & is_free & ~new & differs).sum()),
    )


def _bound(digests: Array, groups: Array, old: Index, kin: Sequence[Path]) -> Array:
    """Return the splits that rows have by earlier versions, or UNSET: uint8 (N,).

    That of the content comes first, then that of the group. A group that is new goes with the first of its contents
    that an earlier version has.
    """

    if not len(old) and not kin:
        return np.full(len(digests), splits.UNSET, np.uint8)

    def earlier() -> Iterator[Index]:  # one at a time: each holds several files open
        yield old
        yield from map(read_kin, kin)

    found = splits.known(_keys(digests), ((_keys(one.digests), one.splits) for one in earlier()))
    grouped = groups != 0
    if grouped.any():
        both = grouped & (found != splits.UNSET)
        of_groups = ((one.groups, one.splits) for one in earlier() if one.groups is not None)
        by_group = splits.known(groups[grouped], chain(of_groups, [(groups[both], found[both])]))
        found[grouped] = np.where(found[grouped] == splits.UNSET, by_group, found[grouped])
    return found


def _keys(digests: Array) -> Array:
    """Return digests, uint8 (N, 32), as values that can be sorted, (N,)."""
    return digests.view("S32").reshape(-1)


def _groups(old: Index, new: Array) -> Array | None:
    """Return the groups of the parent's rows and of the new ones; None if no row has a group."""
    if old.groups is None and not new.any():
        return None
    return np.concatenate([np.zeros(len(old), np.uint64) if old.groups is None else old.groups, new])


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
