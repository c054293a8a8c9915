"""Thumbnails of rows with a picture, for the page: small PNG files without metadata, made while the rows are read.

refused/ROW.png           the first refused rows whose picture can be read
thumbnails/DIGEST.png     a few examples of each label: those with the smallest digests, whatever their order
thumbnails/examples.json  digest, label and split of each
"""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from models.coding import picture_file
from models.entries import from_value
from models.errors import InvalidInput
from models.pictures import open_picture
from models.signature import Picture, read_picture
from models.spec import Array, ModelSpec
from training.datasets.digests import is_picture
from training.datasets.judge import MAX_PIXELS, Good, Refused
from training.datasets.splits import SPLITS
from training.datasets.version import Index, link_or_copy

SIDE = 96  # pixels of the longer side
MOST_REFUSED = 200
EACH = 8  # examples of a label
MOST_LABELS = 50
_DEEP = ("I", "F")  # first letters of modes with more than 8 bits
_CONVERTED = {"1": "L", "P": "RGB"}

_Found = dict[bytes, bytes]  # PNG file by digest


class Thumbnails:
    """Collects the thumbnails of a file."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        """`folder` is that of the version in the making."""
        self._examples_folder = folder / "thumbnails"
        self._refused_folder = folder / "refused"
        self._spec = spec
        self._takes_pictures = spec.picture is not None or any(
            isinstance(kind, Picture) for kind in spec.inputs.values()
        )
        self._refused = 0
        self._examples: dict[str, _Found] = {}

    def refused(self, one: Refused) -> bool:
        """Write the thumbnail of a refused row. Returns whether it has one."""
        content = self._made(one.row.values) if self._refused < MOST_REFUSED else None
        if content is None:
            return False
        self._refused_folder.mkdir(exist_ok=True)
        (self._refused_folder / f"{one.row.number}.png").write_bytes(content)
        self._refused += 1
        return True

    def example(self, one: Good) -> None:
        """Keep the thumbnail of a good row, if its digest is one of the smallest of its label."""
        label = one.target if isinstance(one.target, str) else ""
        if not self._takes_pictures or (label not in self._examples and len(self._examples) == MOST_LABELS):
            return
        found = self._examples.setdefault(label, {})
        if one.digest in found or (len(found) == EACH and one.digest > max(found)):
            return
        if content := self._made(one.row.values):
            found[one.digest] = content
            if len(found) > EACH:
                del found[max(found)]

    def write(self, index: Index, labels: Sequence[str], parent: Path | None) -> None:
        """Write the examples of a version: of the file, and of the parent's folder. No labels if targets are values."""
        old = [] if parent is None else _listed(parent)
        files: dict[bytes, bytes | Path] = {
            bytes.fromhex(one["digest"]): _example(parent, one["digest"]) for one in old if parent is not None
        }
        files.update(pair for found in self._examples.values() for pair in found.items() if pair[0] not in files)
        chosen = _chosen(_described(index, labels, list(files)))
        if not chosen:
            return
        self._examples_folder.mkdir(exist_ok=True)
        for one in chosen:
            target, file = self._examples_folder / f"{one['digest']}.png", files[bytes.fromhex(one["digest"])]
            if isinstance(file, bytes):
                target.write_bytes(file)
            else:
                link_or_copy(str(file), str(target))
        (self._examples_folder / "examples.json").write_text(json.dumps(chosen))

    def _made(self, values: Any) -> bytes | None:
        if not self._takes_pictures:
            return None
        try:
            picture = _picture_in(values, self._spec)
            return None if picture is None else _png(read_picture(_shrunk, picture))
        except InvalidInput:
            return None


def moved(source: Path, target: Path) -> None:
    """Move a folder of thumbnails, if there is one, in place of that of an earlier attempt."""
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        source.rename(target)


def _picture_in(values: Any, spec: ModelSpec) -> Image.Image | None:
    """Return the first picture of a row, not decoded yet; None if it has none. Raises InvalidInput."""
    if isinstance(values, dict):
        pictures = (values.get(name) for name, kind in spec.inputs.items() if isinstance(kind, Picture))
        values = next((value for value in pictures if value is not None), None)
        values = picture_file(values) if isinstance(values, str) else values
    elif isinstance(values, list) and spec.picture is not None:
        values = from_value(values, spec.tensor)
    if isinstance(values, bytes):
        return open_picture(values, MAX_PIXELS)
    if isinstance(values, np.ndarray):
        return Image.fromarray(np.ascontiguousarray(values)) if is_picture(values) else None
    return values.copy() if isinstance(values, Image.Image) else None


def _shrunk(picture: Image.Image) -> Array:
    """Decode a picture into uint8 (height, width) or (height, width, 3), at most SIDE each, upright, on white."""
    if picture.mode.startswith(_DEEP):
        step = -(-max(picture.size) // SIDE)
        return _levels(np.asarray(picture)[::step, ::step].astype(np.float64))
    if picture.mode in _CONVERTED:  # else it could not be scaled smoothly
        picture = picture.convert("RGBA" if picture.has_transparency_data else _CONVERTED[picture.mode])
    picture.thumbnail((SIDE, SIDE))
    small = ImageOps.exif_transpose(picture)
    if small.has_transparency_data:
        small = small.convert("RGBA")
        small = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small)
    return np.asarray(small.convert("L" if small.mode == "L" else "RGB"))


def _levels(numbers: Array) -> Array:
    """Scale numbers (height, width) to 0..255, from the least to the greatest."""
    numbers = np.nan_to_num(numbers, posinf=0, neginf=0)
    least, most = numbers.min(), numbers.max()
    return np.asarray((numbers - least) * (255 / (most - least or 1))).astype(np.uint8)


def _png(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _described(index: Index, labels: Sequence[str], digests: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return digest, label and split of those examples that are in the index, by label and digest."""
    heads = np.ascontiguousarray(index.digests[:, :8]).view("<u8").ravel()
    wanted = set(digests)
    found: list[tuple[int, bytes, int]] = []
    for place in np.flatnonzero(np.isin(heads, [int.from_bytes(digest[:8], "little") for digest in digests])):
        digest = index.digests[place].tobytes()
        if digest in wanted:
            found.append((int(index.targets[place]) if labels else 0, digest, int(index.splits[place])))
    return [
        {"digest": digest.hex(), "label": labels[label] if labels else None, "split": SPLITS[split]}
        for label, digest, split in sorted(found)
    ]


def _chosen(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most EACH examples of a label, of at most MOST_LABELS labels, in their order."""
    by_label: dict[str | None, list[dict[str, Any]]] = {}
    for one in examples:
        by_label.setdefault(one["label"], []).append(one)
    return [one for found in list(by_label.values())[:MOST_LABELS] for one in found[:EACH]]


def _listed(folder: Path) -> Sequence[Mapping[str, Any]]:
    """Return the examples of the version in a folder; nothing if it has no thumbnails."""
    try:
        found: list[Mapping[str, Any]] = json.loads((folder / "thumbnails" / "examples.json").read_bytes())
    except (OSError, ValueError):
        return []
    return [one for one in found if _example(folder, one["digest"]).is_file()]


def _example(folder: Path | None, digest: str) -> Path:
    assert folder is not None
    return folder / "thumbnails" / f"{digest}.png"
