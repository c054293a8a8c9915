"""Check rows by the spec: decoded by the code that decodes requests, refused with the words of /predict."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from models.coding import Coder, as_given
from models.entries import Entries, checked, from_array, from_picture, from_value, picture_or_entry
from models.errors import InvalidInput, shown
from models.pictures import open_picture
from models.spec import Array, ModelSpec
from training.datasets import digests
from training.datasets.labels import Target, group_of, label_of, values_of
from training.datasets.source import Row

MAX_PIXELS = 25_000_000
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Good:
    """An example: its sample as the network takes it (of named inputs: values by name), and its fields in the index."""

    row: Row
    sample: Any
    digest: bytes
    target: str | tuple[float, ...]
    split: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused row."""

    row: Row
    error: InvalidInput
    column: str | None
    value: str | None


class Judge:
    """Checks rows for a model."""

    def __init__(
        self, spec: ModelSpec, target: Target, labels: Sequence[str] | None = None, columns: Sequence[str] = ()
    ) -> None:
        """`columns` are the names of an entry's numbers, for reports."""
        self._spec = spec
        self._target = target
        self._labels = labels
        self._columns = columns
        self._coder = Coder(spec, {}) if spec.inputs else None
        self._encodes = self._coder is not None and _encodes(self._coder, spec)

    def __call__(self, rows: Sequence[Row]) -> list[Good | Refused]:
        """Check rows, at most 4,096 at once: the check of a one-tensor model is vectorised."""
        found: list[Good | Refused] = [self._judged(row) for row in rows]
        if self._spec.inputs:
            return found
        places = [place for place, one in enumerate(found) if isinstance(one, Good)]
        if not places:
            return found
        goods = [one for one in found if isinstance(one, Good)]
        entries = np.stack([good.sample for good in goods])
        from_pictures = {place for place, good in enumerate(goods) if isinstance(good.row.values, bytes)}
        errors = self._check(entries, from_pictures)
        kept = [place for place in range(len(goods)) if place not in errors]
        samples = self._spec.preprocess(entries[kept]) if kept else entries[:0]
        for place, error in errors.items():
            found[places[place]] = self._refused(goods[place].row, error)
        for sample, place in zip(samples, kept, strict=True):
            good = goods[place]
            found[places[place]] = Good(good.row, sample, good.digest, good.target, good.split, good.group)
        return found

    def _check(self, entries: Array, pictures: set[int]) -> dict[int, InvalidInput]:
        """Check the entries that are not pictures, as requests are. Return errors by position."""
        places = [place for place in range(len(entries)) if place not in pictures]
        if not places:
            return {}
        errors = checked(Entries(entries[places]), self._spec.check).errors
        return {places[place]: error for place, error in errors.items()}

    def _judged(self, row: Row) -> Good | Refused:
        if row.fault is not None:
            return self._refused(row, row.fault)
        try:
            sample, digest = self._named(row.values) if self._coder else self._entry(row.values)
        except InvalidInput as err:
            return self._refused(row, err.alone())
        try:
            target = label_of(row.target, self._labels) if self._target == "label" else values_of(row.target)
            split, group = _split(row.split), group_of(row.group)
        except InvalidInput as err:
            return Refused(row, err.alone(), None, _shown(row.target) or _shown(row.place))
        return Good(row, sample, digest, target, split, group)

    def _entry(self, values: Any) -> tuple[Array, bytes]:
        spec = self._spec
        if isinstance(values, bytes):
            if spec.picture is None:
                raise InvalidInput("Wrong sample", "the model takes no pictures")
            found = picture_or_entry(values, spec, MAX_PIXELS)
            entry = found if isinstance(found, np.ndarray) else from_picture(found, spec)
            return entry, digests.of_picture(values, MAX_PIXELS)
        if isinstance(values, np.ndarray):
            return self._of_array(values)
        entry = from_value(values, spec.tensor)
        if spec.picture is not None and digests.is_picture(entry):
            return entry, digests.of_pixels(entry)
        return entry, digests.of_numbers(entry)

    def _of_array(self, array: Array) -> tuple[Array, bytes]:
        """Decode an array as a .npy body is; pixels of another size as a picture."""
        spec = self._spec
        if spec.picture is not None and digests.is_picture(array):
            digest = digests.of_pixels(array)
            if array.shape != spec.tensor.shape:
                return from_picture(Image.fromarray(np.ascontiguousarray(array)), spec), digest
        else:
            digest = None
        entries = from_array(array[None], spec.tensor)
        if entries.errors:
            raise entries.errors[0]
        entry = np.ascontiguousarray(entries.good[0])
        return entry, digest or digests.of_numbers(entry)

    def _named(self, values: Any) -> tuple[dict[str, Any], bytes]:
        """Return the values of a sample, checked; null if they are missing."""
        assert self._coder
        spec = self._spec
        if isinstance(values, str) and len(spec.inputs) == 1:
            values = {next(iter(spec.inputs)): values}
        coded = self._coder.values(values, _opened)
        if self._encodes:
            self._coder.encoded(coded)
        return as_given(values, coded), digests.of_named(values, coded, spec, MAX_PIXELS)

    def _refused(self, row: Row, error: InvalidInput) -> Refused:
        """Name the column at fault and its value, if one is."""
        values, column = row.values, error.place
        value: Any = None
        if isinstance(values, dict) and column is not None:
            value = values.get(column)
        elif isinstance(values, list) and len(values) == len(self._columns):
            column, value = self._cell(values)
        return Refused(row, error, column, _shown(value) or _shown(row.place))

    def _cell(self, values: Sequence[Any]) -> tuple[str | None, Any]:
        """Find the first number of a row that alone is at fault."""
        low, high = self._spec.tensor.low, self._spec.tensor.high
        for name, value in zip(self._columns, values, strict=True):
            if isinstance(value, str) or not low <= value <= high:
                return name, value
        return None, None


def _encodes(coder: Coder, spec: ModelSpec) -> bool:
    """Return whether `encode` works without the artifacts of a version: then it checks, too."""
    if spec.encode is None:
        return False
    try:
        for sample in spec.example:
            coder(sample, _opened)
    except InvalidInput:
        return False
    return True


def _opened(content: bytes) -> Image.Image:
    return open_picture(content, MAX_PIXELS)


def _split(raw: object) -> str | None:
    if raw is None or raw == "" or (isinstance(raw, float) and np.isnan(raw)):
        return None
    found = _SPLITS.get(str(raw).strip().lower())
    if found is None:
        raise InvalidInput("Unknown split", f"{shown(str(raw))!r} is none of train, validation and test")
    return found


def _shown(value: object) -> str | None:
    if value is None or isinstance(value, bytes | bytearray | dict | list | np.ndarray):
        return None
    return shown(str(value))


def sample_digest(sample: Any) -> bytes:
    """Return the digest of a decoded sample, to find it in other data that was decoded by the same code."""
    array = np.ascontiguousarray(sample)
    return hashlib.sha256(str((array.dtype.str, array.shape)).encode() + array.tobytes()).digest()
