"""Files of own data, and versions made of them."""

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from models.messages import DatasetOptions, Ingested
from models.spec import Array, ModelSpec
from tests.fakes import LINE
from training.datasets.ingest import Request, ingest
from training.datasets.splits import SPLITS
from training.datasets.version import Index, read_index


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Write rows, the names of the columns first."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def png(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def digit(number: int) -> Array:
    """Draw a stroke, different for each number below 300: uint8 (28, 28), in the form of MNIST."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[6:22, 13:16] = 255
    pixels[8 + number % 10, 12:17] = 200
    pixels[10, 16] = 1 + number // 10
    return pixels


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def idx(array: Array) -> bytes:
    """Return the IDX file of an array of bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def line_rows(count: int, start: int = 0) -> list[Sequence[object]]:
    """Return the columns x and y, and rows of y = 2x + 2."""
    return [("x", "y"), *((number, 2 * number + 2) for number in range(start, start + count))]


def made(folder: Path, source: Path, spec: ModelSpec = LINE, **values: Any) -> Ingested:
    """Ingest a file into the store `folder`/store; values are fields of Request."""
    given: dict[str, Any] = {"model": "line", "target": "value", "labels": None, "job": "j", **values}
    options = DatasetOptions(
        **{name: given.pop(name) for name in ("label_column", "split_column", "group_column") if name in given}
    )
    request = Request(spec=spec, store=folder / "store", source=source, options=options, **given)
    return ingest(request, lambda *_: None)


def version(folder: Path, done: Ingested) -> Path:
    """Return the folder of a version."""
    return folder / "store" / done.folder


def index(folder: Path, done: Ingested) -> Index:
    return read_index(version(folder, done))


def split_of(folder: Path, done: Ingested) -> dict[bytes, str]:
    """Return the split of each content."""
    found = index(folder, done)
    return {
        bytes(digest): SPLITS[split]
        for digest, split in zip(np.asarray(found.digests), found.splits.tolist(), strict=True)
    }
