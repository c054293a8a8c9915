"""Open a dataset version for training: small ones in memory, large ones memory-mapped, a batch at a time."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from models.checkpoints.code import cache_key
from models.checkpoints.location import DatasetFile
from models.checkpoints.storage import Storage
from models.dataset_manifest import Manifest, Original
from models.errors import CheckpointError
from models.spec import Array, ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.ingest import schema_of
from training.datasets.judge import Good, Judge
from training.datasets.readers.detect import open_source
from training.datasets.segments import Rows, Samples, SegmentWriter, numbers_of
from training.datasets.source import Wanted, in_parts
from training.datasets.splits import SPLITS, TRAIN, VALIDATION
from training.datasets.version import Index, read_index, read_manifest
from training.recipe import Dataset, Recipe, Split, TrainingError

log = logging.getLogger(__name__)
IN_MEMORY = 2**28  # bytes of the samples of all splits, up to which they are read at once


@dataclass(frozen=True, slots=True)
class Places:
    """Where the samples of a split are: the segment of each, int64 (N,), and its place there, int64 (N,)."""

    segments: Array
    places: Array

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: Any) -> "Places":
        return Places(self.segments[rows], self.places[rows])


@dataclass(frozen=True, slots=True)
class Streamed:
    """Samples of a split on disk, with the methods of a tensor (N, ...) that training uses.

    A slice is again on disk; a batch, by positions, is a tensor on `device`.
    """

    sources: Sequence[Samples]
    where: Places
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        """The shape (N, ...)."""
        return torch.Size((len(self), *self.sources[0].shape))

    def __len__(self) -> int:
        return len(self.where)

    @overload
    def __getitem__(self, rows: slice) -> "Streamed": ...
    @overload
    def __getitem__(self, rows: Tensor) -> Tensor: ...
    def __getitem__(self, rows: "slice | Tensor") -> "Streamed | Tensor":
        if isinstance(rows, slice):
            return replace(self, where=self.where[rows])
        return self._read(self.where[rows.cpu().numpy()])

    def index_select(self, _: int, rows: Tensor) -> Tensor:
        """Read the samples at these positions."""
        return self[rows]

    def split(self, size: int) -> Iterator[Tensor]:
        """Read batches of `size` samples, one after the other; the last may be smaller."""
        for begin in range(0, len(self), size):
            yield self._read(self.where[begin : begin + size])

    def to(self, device: "str | torch.device") -> "Streamed":
        """Return the samples whose batches are copied to that device."""
        return replace(self, device=torch.device(device))

    def _read(self, where: Places) -> Tensor:
        parts = np.unique(where.segments)
        if len(parts) == 1:
            return torch.from_numpy(self.sources[int(parts[0])].take(where.places)).to(self.device)
        found = np.empty((len(where), *self.sources[0].shape), self.sources[0].dtype)
        for part in parts:
            there = where.segments == part
            found[there] = self.sources[int(part)].take(where.places[there])
        return torch.from_numpy(found).to(self.device)


@dataclass(frozen=True, slots=True)
class StoredRows(Sequence[dict[str, Any]]):
    """Rows of a model with named inputs on disk: values by name, read when they are asked for."""

    sources: Sequence[Rows]
    where: Places

    def __len__(self) -> int:
        return len(self.where)

    @property
    def is_large(self) -> bool:
        """Whether the rows of all splits are too large for memory."""
        return sum(source.nbytes for source in self.sources) > IN_MEMORY

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> "StoredRows": ...
    def __getitem__(self, row: "int | slice") -> "dict[str, Any] | StoredRows":
        if isinstance(row, slice):
            return replace(self, where=self.where[row])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.sources[int(self.where.segments[row])].row(int(self.where.places[row]))


def opened(model: str, spec: ModelSpec, recipe: Recipe[Any], file: DatasetFile) -> Dataset:
    """Open a version as `Recipe.load` returns data. Raises TrainingError if it does not fit, or is damaged.

    Raises ObjectsUnavailable if it has to be fetched from an object store, which is away.
    """
    storage = None if file.store is None else Storage.at(file.store)
    try:
        if storage is not None:
            storage.fetch_dataset(model, file.sha256)
        manifest, index = read_manifest(file.folder), read_index(file.folder)
        _require_fitting(manifest, spec, recipe, file.label)
        originals = range(len(manifest.originals))
        segments = [_segment(model, spec, recipe, file.folder, place, storage) for place in originals]
        places = _places(index, segments, file.label)
        splits = _splits(manifest, index, segments, places, file.label, named=bool(spec.inputs))
    except DatasetError as err:
        raise TrainingError(f"{file.label}: {err.detail}") from err
    except CheckpointError as err:
        raise TrainingError(f"{file.label}: {err}") from err
    labels = tuple(manifest.labels) if recipe.labels is None else ()
    digests = index.digests[(index.splits == VALIDATION) & (places >= 0)]
    return Dataset(name=file.label, labels=labels, sha256=manifest.sha256, validation_digests=digests, **splits)


def _require_fitting(manifest: Manifest, spec: ModelSpec, recipe: Recipe[Any], label: str) -> None:
    if manifest.target != recipe.target:
        raise TrainingError(f"{label} has a {manifest.target} for each row, the recipe learns a {recipe.target}")
    if recipe.labels is not None and list(recipe.labels) != list(manifest.labels):
        raise TrainingError(
            f"{label} has the labels {', '.join(manifest.labels)}, the model {', '.join(recipe.labels)}"
        )
    if manifest.schema != schema_of(spec):
        raise TrainingError(f"the inputs of the model have changed since {label} was made: make it of its file again")
    if empty := [name for name, count in manifest.examples.items() if not count]:
        raise TrainingError(f"{label} has no rows in the {empty[0]} split: let it grow")


def _places(index: Index, segments: Sequence[Path], label: str) -> Array:
    """Return the place of each row in its segment, int64 (N,); -1 for a row that the current code refuses."""
    places = np.full(len(index), -1, np.int64)
    for number, segment in enumerate(segments):
        mine = np.flatnonzero(index.sources == number)
        there = numbers_of(segment)
        found = np.searchsorted(there, index.numbers[mine])
        found = np.minimum(found, max(0, len(there) - 1))
        known = there[found] == index.numbers[mine] if len(there) else np.zeros(len(mine), bool)
        places[mine[known]] = found[known]
    if lost := int((places < 0).sum()):
        log.warning("rows are refused by the code as it is now, and left out", extra={"dataset": label, "rows": lost})
    return places


def _splits(
    manifest: Manifest, index: Index, segments: Sequence[Path], places: Array, label: str, *, named: bool
) -> dict[str, Split]:
    """Open the samples of each split."""
    used = sorted(set(np.asarray(index.sources[places >= 0]).tolist()))
    sources: Any = [(Rows if named else Samples)(segments[number]) for number in used]
    order = np.zeros(len(segments), np.int64)
    order[used] = np.arange(len(used))
    weights = np.array([original.weight for original in manifest.originals], np.int64)
    found_splits = {}
    for number, name in enumerate(SPLITS):
        rows = np.flatnonzero((index.splits == number) & (places >= 0))
        if not len(rows):
            raise TrainingError(f"{label} has no rows in the {name} split: let it grow")
        if number == TRAIN:
            rows = np.repeat(rows, weights[index.sources[rows]])
        where = Places(order[index.sources[rows]], places[rows])
        count = max(len(rows), int((places >= 0).sum()))
        samples = StoredRows(sources, where) if named else _samples(sources, where, count)
        found_splits[name] = Split(samples, _targets(manifest, index.targets[rows]))
    return found_splits


def _samples(sources: Sequence[Samples], where: Places, rows: int) -> "Streamed | Tensor":
    """Read the samples into memory, unless the `rows` of all splits are too large for it."""
    streamed = Streamed(sources, where, torch.device("cpu"))
    if rows * sources[0].row_bytes > IN_MEMORY:
        return streamed
    return torch.cat(list(streamed.split(4_096)))


def _targets(manifest: Manifest, targets: Array) -> Tensor:
    """Return labels as int64 (N,), values as float32 (N, k)."""
    return torch.from_numpy(np.array(targets, np.int64 if manifest.target == "label" else np.float32))


def _segment(
    model: str, spec: ModelSpec, recipe: Recipe[Any], folder: Path, place: int, storage: Storage | None
) -> Path:
    """Return the decoded samples of an original, decoded again if the code has changed, or on another machine.

    Raises DatasetError, CheckpointError, ObjectsUnavailable.
    """
    manifest = read_manifest(folder)
    original = manifest.originals[place]
    segment = folder / "cache" / cache_key(model, spec) / original.key
    if not segment.is_dir():
        path = folder.parent / "originals" / original.sha256
        if storage is not None and original.sha256:
            storage.fetch(path, original.sha256)
        if not original.sha256 or not path.exists():
            raise DatasetError(
                "Missing original",
                "the code that decodes its rows has changed, and its file is not kept: make it of its file again",
            )
        _decode(path, original, spec, recipe, segment)
    return segment


def _decode(path: Path, original: Original, spec: ModelSpec, recipe: Recipe[Any], segment: Path) -> None:
    """Decode an original into a segment, which appears by one rename."""
    draft = segment.with_name(f".draft-{uuid4().hex}")
    scratch = draft / "scratch"
    try:
        scratch.mkdir(parents=True)
        source = open_source(path, original.format, Wanted(spec=spec, options=original.options, scratch=scratch))
        assert recipe.target
        judge = Judge(spec, recipe.target, recipe.labels, source.columns)
        writer = SegmentWriter(draft / "segment", named=bool(spec.inputs))
        try:
            for part in in_parts(source.rows()):
                if good := [one for one in judge(part) if isinstance(one, Good)]:
                    writer.add([one.row.number for one in good], [one.sample for one in good])
        finally:
            writer.close()
        (draft / "segment").rename(segment)
    except OSError as err:
        if not segment.is_dir():  # else another process was faster
            raise DatasetError("Store unavailable", f"its rows cannot be decoded again ({err.strerror})") from err
    finally:
        shutil.rmtree(draft, ignore_errors=True)
