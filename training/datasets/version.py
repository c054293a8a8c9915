"""A dataset version's folder: manifest, index of its rows, and cache of decoded samples.

manifest.json      digest, schema, labels, originals, counts
digests.npy        uint8 (N, 32), the content of each row
splits.npy         uint8 (N,), positions in SPLITS
targets.npy        int64 (N,), positions in the labels; or float64 (N, k), values
sources.npy        uint16 (N,), positions in the list of originals
numbers.npy        int64 (N,), the row of the original
groups.npy         uint64 (N,), `splits.draw` of the row's group, 0 without one; only if a row has a group
thumbnails/        of a few examples (see `thumbnails`)
cache/KEY/SOURCE/  decoded samples of an original (see `segments`); KEY follows from the code that decodes

The first `inherited` rows are those of the parent.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models import dataset_manifest as manifest
from models.checkpoints.files import file_digest
from models.dataset_manifest import Manifest
from models.spec import Array
from training.datasets.errors import DatasetError
from training.datasets.splits import SPLITS

_ARRAYS = ("digests", "splits", "targets", "sources", "numbers")
_GROUPS = "groups"


@dataclass(frozen=True, slots=True)
class Index:
    """The arrays of a version, N rows each. `groups` is None if no row has a group."""

    digests: Array
    splits: Array
    targets: Array
    sources: Array
    numbers: Array
    groups: Array | None = None

    def __len__(self) -> int:
        return len(self.digests)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version. Raises DatasetError."""
    try:
        return manifest.read(folder)
    except (OSError, ValueError) as err:
        raise DatasetError("Missing dataset", "the files of the dataset version are missing or damaged") from err


def read_index(folder: Path) -> Index:
    """Map the index of a version. Raises DatasetError."""
    try:
        names = (*_ARRAYS, _GROUPS) if (folder / f"{_GROUPS}.npy").exists() else _ARRAYS
        return Index(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))
    except (OSError, ValueError) as err:
        raise DatasetError("Missing dataset", "the files of the dataset version are missing or damaged") from err


def write_version(folder: Path, made: Manifest, index: Index) -> None:
    """Write manifest and index into a draft's folder."""
    names = _ARRAYS if index.groups is None else (*_ARRAYS, _GROUPS)
    paths = [folder / f"{name}.npy" for name in names]
    for name, path in zip(names, paths, strict=True):
        np.save(path, getattr(index, name))
    manifest.write(folder, replace(made, files={path.name: file_digest(path) for path in paths}))


def version_digest(index: Index, labels: Sequence[str], schema: Mapping[str, Any], weights: Sequence[int] = ()) -> str:
    """Return the digest of the rows, in any order, with their targets, splits and groups, of the labels and of the
    schema. `weights` of the originals count if one of them is not 1.
    """
    targets = np.ascontiguousarray(index.targets)
    order = np.lexsort(np.ascontiguousarray(index.digests).view("<u8").T)
    found = hashlib.sha256(json.dumps([list(labels), schema], sort_keys=True).encode())
    for begin in range(0, len(order), 65_536):
        part = order[begin : begin + 65_536]
        columns = [
            index.digests[part],
            index.splits[part][:, None],
            targets[part].astype("<i8" if targets.dtype.kind == "i" else "<f8").reshape(len(part), -1).view(np.uint8),
        ]
        if index.groups is not None:
            columns.append(index.groups[part].astype("<u8")[:, None].view(np.uint8))
        if set(weights) - {1}:
            columns.append(np.asarray(weights, "<i8")[index.sources[part]][:, None].view(np.uint8))
        found.update(np.concatenate(columns, axis=1).tobytes())
    return found.hexdigest()


def counts(index: Index, labels: Sequence[str]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Count the examples by split, and by label and split; no labels if the targets are values."""
    by_split = {name: int((index.splits == place).sum()) for place, name in enumerate(SPLITS)}
    if not labels:
        return by_split, {}
    table = np.zeros((len(labels), len(SPLITS)), np.int64)
    np.add.at(table, (index.targets, index.splits), 1)
    by_label = {label: dict(zip(SPLITS, row, strict=True)) for label, row in zip(labels, table.tolist(), strict=True)}
    return by_split, by_label


def link_or_copy(source: str, target: str) -> str:
    """Give `target` the content of a file that never changes, without a copy if the file system has hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def link_tree(source: Path, target: Path) -> None:
    """Give `target` the files of the folder `source`."""
    shutil.copytree(source, target, copy_function=link_or_copy)
