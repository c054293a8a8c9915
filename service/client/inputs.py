"""Convert inputs into a request body: files, bytes, pictures, arrays, nested lists, named values."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from service.client import files, named, numbers, pictures
from service.client.errors import BadArgument

_NPY, _NPZ, _JSON = "application/x-npy", "application/x-npz", "application/json"
_TYPES = {".npy": _NPY, ".npz": _NPZ, ".json": _JSON}
_PICTURE = "application/octet-stream"  # the service detects a picture's format from its bytes
_NPY_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
_NAME_WITHIN = 300  # bytes: the name of an .npz file's first array


def body(inputs: Any, *, texts: bool = False) -> dict[str, Any]:
    """Return keyword arguments for httpx. `texts`: strings in a list are texts, not file names.

    `inputs` is one of: a picture, a .npy, .npz or JSON file (a body, or its list of inputs) as path, bytes or file open
    in binary mode; a Pillow image of any mode; an array (N, ...) of NumPy or a compatible type; nested lists, one item
    per sample, or other iterables; a list of pictures, one per sample; for named inputs a list of dicts, one per
    sample, or a dict of columns. Raises BadArgument for other inputs.
    """
    if isinstance(inputs, Mapping):
        if set(inputs) != {"inputs"}:
            found = named.columns(inputs)
            return _of_list(found) if isinstance(found, list) else _body(numbers.npz(found), _NPZ)
        inputs = inputs["inputs"]
    if texts:
        return _of_list(numbers.listed(inputs))
    if _is_part(inputs):
        content, media_type = _part(inputs)
        if media_type == _JSON and content.lstrip().startswith(b"["):
            content = b'{"inputs": ' + content + b"}"
        return _body(content, media_type)
    if numbers.is_array(inputs):
        return _of_array(numbers.as_array(inputs))
    return _of_items(numbers.listed(inputs))


def _of_items(items: list[Any]) -> dict[str, Any]:
    if any(isinstance(item, Mapping) for item in items):
        return _of_list([named.sample(_mapping(item, place)) for place, item in enumerate(items)])
    parts = [_is_part(item) for item in items]
    if items and all(parts):
        if len(items) == 1:
            return body(items[0])
        return {"files": [("file", ("picture", *part)) for part in _all_parts(items)]}
    if any(parts):
        other = parts.index(False)
        raise BadArgument(
            f"sample {other} is of type {type(items[other]).__name__}, sample {parts.index(True)} is a file or a "
            "picture: pass files and pictures alone, or numbers alone",
        )
    if any(map(numbers.is_array, items)):
        return _of_array(numbers.stacked(items))
    return _of_list(items)


def _mapping(item: Any, place: int) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise BadArgument(f"sample {place} is of type {type(item).__name__}, others are dicts: pass dicts alone")
    return item


def _is_part(item: Any) -> bool:
    return pictures.is_picture(item) or files.is_file(item)


def _all_parts(items: list[Any]) -> list[tuple[bytes, str]]:
    """Return the parts of a form, of at most MOST_BYTES together."""
    parts = []
    left = files.MOST_BYTES
    for item in items:
        parts.append(_part(item, left))
        left -= len(parts[-1][0])
        if left <= 0:
            raise BadArgument(f"the files have more than {files.MOST_BYTES:,} bytes together: send fewer at once")
    return parts


def _part(item: Any, most: int = files.MOST_BYTES) -> tuple[bytes, str]:
    """Return a body, or one part of a form, with its media type."""
    if pictures.is_picture(item):
        return pictures.png(item), "image/png"
    content, name = files.read(item, most)
    return content, _TYPES.get(PurePath(name).suffix.lower()) or _detected(content)


def _detected(content: bytes) -> str:
    if content.startswith(_NPY_MAGIC):
        return _NPY
    if content.startswith(_ZIP_MAGIC) and b".npy" in content[:_NAME_WITHIN]:
        return _NPZ
    return _JSON if content[:64].lstrip().startswith((b"{", b"[")) else _PICTURE


def _of_array(samples: Any) -> dict[str, Any]:
    content = numbers.npy(samples)
    return _of_list(samples.tolist()) if content is None else _body(content, _NPY)


def _of_list(items: list[Any]) -> dict[str, Any]:
    return _body(b'{"inputs": ' + numbers.encoded(items, "inputs") + b"}", _JSON)


def _body(content: bytes, media_type: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": media_type}}
