"""Convert inputs into a request body: files, bytes, pictures, arrays, nested lists."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TYPES = {".npy": "application/x-npy", ".json": "application/json"}
_PICTURE = "application/octet-stream"  # the service detects a picture's format from its bytes
_NPY = b"\x93NUMPY"


def body(inputs: Any) -> dict[str, Any]:
    """Return keyword arguments for httpx.

    `inputs` is one of: the path of a picture, a .npy or a .json file (a whole body); the bytes of a picture or of a
    .npy file; a Pillow image; an array (N, ...) of NumPy or a compatible type; nested lists, one item per sample; or a
    list of
    paths, bytes and Pillow images, one picture per sample. Raises OSError if a file cannot be read.
    """
    if _is_file(inputs):
        content, media_type = _one(inputs)
        return {"content": content, "headers": {"Content-Type": media_type}}
    if _is_list(inputs) and inputs and all(map(_is_file, inputs)):
        return (
            body(inputs[0]) if len(inputs) == 1 else {"files": [("file", ("picture", *_one(item))) for item in inputs]}
        )
    if not _is_list(inputs) or any(hasattr(item, "__array__") for item in inputs):
        return {"content": _npy(inputs), "headers": {"Content-Type": _TYPES[".npy"]}}
    return {"json": {"inputs": inputs}}


def _one(item: Any) -> tuple[bytes, str]:
    """Return a body, or one part of a form, with its media type."""
    if isinstance(item, bytes):
        return item, _TYPES[".npy"] if item.startswith(_NPY) else _PICTURE
    if isinstance(item, str | Path):
        return Path(item).read_bytes(), _TYPES.get(Path(item).suffix.lower(), _PICTURE)
    file = io.BytesIO()
    item.save(file, "PNG")
    return file.getvalue(), "image/png"


def _npy(array: Any) -> bytes:
    import numpy as np  # noqa: PLC0415 - an optional dependency: callers with arrays have it

    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def _is_list(inputs: Any) -> bool:
    return isinstance(inputs, Sequence)


def _is_file(item: Any) -> bool:
    """Return whether an item is a path, bytes or a Pillow image, without importing Pillow."""
    return isinstance(item, str | Path | bytes) or (hasattr(item, "getbands") and hasattr(item, "save"))
