"""The MNIST files in IDX format, under any of their usual names: found, checked and read.

Format: http://yann.lecun.com/exdb/mnist/: big-endian uint32 magic number and sizes, then uint8 values.
"""

import gzip
import re
import struct
import zlib
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from training.recipe import Split, TrainingError

_GZIP = b"\x1f\x8b"
_PICTURES, _LABELS = 0x803, 0x801  # magic numbers: uint8, in 3 dimensions or 1
_SIDE = 28
_CLASSES = 10
_CONTENT = {_PICTURES: "pictures", _LABELS: "labels"}


def find(folder: Path, part: str) -> tuple[Path | None, Path | None]:
    """Return the files of pictures and labels of a part, "train" or "t10k". None if a file is missing.

    train-images-idx3-ubyte is also found as train-images.idx3-ubyte, with .gz, in capitals, and in a folder of the same
    name.
    """
    raw = folder / "MNIST" / "raw"
    files = sorted(path for path in [*raw.glob("*"), *raw.glob("*/*")] if path.is_file())
    return _named(files, f"{part}-images", 3), _named(files, f"{part}-labels", 1)


def standard_names(part: str) -> tuple[str, str]:
    """Return the usual names of the files of pictures and labels."""
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _named(files: list[Path], stem: str, dimensions: int) -> Path | None:
    """Return the file with that name, preferably the standard one."""
    pattern = re.compile(rf"{stem}[-._]idx{dimensions}[-._]ubyte(\.gz)?", re.IGNORECASE)
    found = [path for path in files if pattern.fullmatch(path.name)]
    found.sort(key=lambda path: (path.name != f"{stem}-idx{dimensions}-ubyte", path.suffix == ".gz"))
    return found[0] if found else None


def read(pictures: Path, labels: Path, least: int) -> Split:
    """Read a part: uint8 (N, 1, 28, 28) and int64 (N,). Raises TrainingError, which names the file that is wrong.

    `least` is the smallest number of pictures.
    """
    sizes, values = _read(pictures, _PICTURES)
    if sizes[1:] != (_SIDE, _SIDE):
        raise TrainingError(
            f"{pictures.name} holds pictures of {sizes[1]}x{sizes[2]} pixels; MNIST has {_SIDE}x{_SIDE}"
        )
    (count,), classes = _read(labels, _LABELS)
    if count != sizes[0]:
        raise TrainingError(
            f"{pictures.name} holds {sizes[0]:,} pictures, but {labels.name} {count:,} labels; they belong together: "
            "fetch both again"
        )
    if count < least:
        raise TrainingError(f"{pictures.name} holds {count:,} pictures only; at least {least:,} are needed")
    if (highest := int(classes.max())) >= _CLASSES:
        raise TrainingError(f"{labels.name} holds the label {highest}; MNIST has 0 to {_CLASSES - 1}")
    return Split(values.reshape(count, 1, _SIDE, _SIDE), classes.long())


def _read(path: Path, magic: int) -> tuple[tuple[int, ...], Tensor]:
    """Return the sizes and the values, uint8 (product of sizes,)."""
    content = _content(path)
    sort = int.from_bytes(content[:4], "big")
    if sort != magic or len(content) < 4:
        begun = (
            f"holds {_CONTENT[sort]}" if sort in _CONTENT else f"begins with the bytes {content[:4].hex() or 'none'}"
        )
        raise TrainingError(f"{path.name} is not an IDX file of {_CONTENT[magic]}: it {begun}; fetch it again")
    dimensions = magic & 0xFF
    head = 4 + 4 * dimensions
    if len(content) < head:
        raise _cut_short(path, len(content), head)
    sizes = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) < head + prod(sizes):
        raise _cut_short(path, len(content), head + prod(sizes))
    if len(content) > head + prod(sizes):
        raise TrainingError(
            f"{path.name} holds {len(content):,} bytes, but {head + prod(sizes):,} by its header; fetch it again"
        )
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=head) if prod(sizes) else torch.empty(0)
    return sizes, values


def _content(path: Path) -> bytes:
    """Return the content, unpacked if it is gzip, whatever the name says."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise TrainingError(f"{path.name} is damaged or cut short: it cannot be unpacked; fetch it again") from err
    except OSError as err:
        raise TrainingError(f"{path.name} cannot be read ({err.strerror})") from err


def _cut_short(path: Path, present: int, whole: int) -> TrainingError:
    return TrainingError(f"{path.name} is cut short: {present:,} of {whole:,} bytes; fetch it again")
