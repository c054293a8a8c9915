"""Tensor data of the Open Inference Protocol: JSON or bytes to arrays and back.

Pure functions: no HTTP, no model. Unreadable input raises Malformed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
import orjson

from models.spec import Array
from service.errors import Malformed

BYTES = "BYTES"
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_JSON_TYPES: Mapping[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}
MAX_DEPTH = 100
_SHOWN = 60  # characters of a client's value in a message


@dataclass(frozen=True, slots=True)
class TensorType:
    """Name, datatype and shape of a tensor; -1 in `shape` is any size. An optional one may be left out."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.datatype} of shape {list(self.shape)}"


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a NumPy dtype. Raises KeyError if it has none."""
    return BYTES if dtype.hasobject else _NAMES[dtype.newbyteorder("<")]


def from_json(data: Any, kind: TensorType, shape: tuple[int, ...], *, has_booleans: bool = True) -> Array:
    """Convert nested or flat lists, in row-major order, to an array. In an optional tensor of floats, null is NaN.

    `has_booleans`: whether there may be booleans in the lists.
    """
    if kind.datatype == "FP16":
        raise Malformed(f"input {kind.name!r}: FP16 has no form in JSON; send it as binary data")
    if not isinstance(data, list):
        raise Malformed(f"input {kind.name!r}: data must be a list")
    if kind.datatype == "UINT8" and not has_booleans and len(data) == math.prod(shape):
        flat = _bytes(data)
        if flat is not None:
            return flat.reshape(shape)
    dtype = DATATYPES.get(kind.datatype)
    allowed = {str} if dtype is None else _JSON_TYPES[dtype.kind]
    nulls = {NoneType} if kind.optional and (dtype is None or dtype.kind == "f") else set()
    if not types_in(data) <= allowed | nulls:
        words = " or ".join(sorted(kind.__name__ for kind in allowed))
        raise Malformed(f"input {kind.name!r}: data of {kind.datatype} must be {words} values alone")
    array = _strings(data, len(shape), kind) if dtype is None else _array(data, dtype, kind)
    if array.shape != shape and (array.ndim != 1 or array.size != math.prod(shape)):
        raise Malformed(f"input {kind.name!r}: data has shape {list(array.shape)}, announced as {shown(list(shape))}")
    return array.reshape(shape)


def from_bytes(data: memoryview, kind: TensorType, shape: tuple[int, ...]) -> Array:
    """Convert binary data to an array, without a copy if it is aligned."""
    count = math.prod(shape)
    if kind.datatype == BYTES:
        return _unframed(data, count, kind.name).reshape(shape)
    dtype = DATATYPES[kind.datatype]
    if len(data) != count * dtype.itemsize:
        raise Malformed(
            f"input {kind.name!r}: {kind.datatype} of shape {shown(list(shape))} takes "
            f"{shown(count * dtype.itemsize)} bytes, not {len(data)}",
        )
    if dtype.kind == "b" and np.any(np.frombuffer(data, np.uint8) > 1):
        raise Malformed(f"input {kind.name!r}: a BOOL is a byte 0 or 1")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def elements(items: list[bytes]) -> Array:
    """Return the array (N,) of a BYTES tensor."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def to_json(values: Array, *, finite: bool = False) -> Any:
    """Write values as flat JSON data; NaN and infinities as bare words, as other servers of the protocol do.

    `finite`: there are known to be none.
    """
    if values.dtype == object:
        return [item.decode() for item in values.flat]
    flat = values.ravel()
    if finite or flat.dtype.kind != "f" or np.isfinite(flat).all():
        return flat
    words = [
        orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) if np.isfinite(value) else _word(value) for value in flat
    ]
    return orjson.Fragment(b"[" + b",".join(words) + b"]")


def to_bytes(values: Array) -> bytes:
    """Write values as binary data: row-major, little-endian, each BYTES element after its length."""
    if values.dtype == object:
        return b"".join(len(item).to_bytes(4, "little") + item for item in values.flat)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def classes(values: Array, count: int, labels: Sequence[str] = ()) -> Array:
    """Return the `count` greatest of each row of values (N, k), at most k, greatest first.

    Each is `value:index`, or `value:index:label` if there are labels.
    """
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :count]
    named = np.empty(order.shape, dtype=object)
    for place in np.ndindex(order.shape):
        index = int(order[place])
        label = f":{labels[index]}" if labels else ""
        named[place] = f"{values[place[0], index]!s}:{index}{label}".encode()
    return named


def types_in(data: Iterable[Any], depth: int = 1) -> set[type]:
    """Return the types in a tree of lists and objects.

    Checked before NumPy sees it: a string among numbers would make it widen every number to that string's length.
    """
    if depth > MAX_DEPTH:
        raise Malformed(f"the JSON is nested deeper than {MAX_DEPTH}")
    found = set(map(type, data))
    if found & {list, dict}:
        for part in data:
            if isinstance(part, list | dict):
                found |= types_in(part if isinstance(part, list) else part.values(), depth + 1)
    return found - {list}


def shown(value: Any) -> str:
    """Return a client's value, shortened for a message."""
    text = repr(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def _bytes(data: list[Any]) -> Array | None:
    """Convert whole numbers from 0 to 255, no booleans among them, to uint8; None if there is anything else.

    A tenth of the time that NumPy takes.
    """
    try:
        return np.frombuffer(bytes(data), np.uint8)
    except (ValueError, TypeError):
        return None


def _array(data: list[Any], dtype: np.dtype[Any], kind: TensorType) -> Array:
    try:
        array = np.asarray(data) if data else np.empty(0, dtype)
    except ValueError as err:
        raise Malformed(f"input {kind.name!r}: data is nested unevenly") from err
    if dtype.kind in "ui":
        bounds = np.iinfo(dtype)
        if array.size and not (array.dtype.kind in "ui" and bounds.min <= array.min() <= array.max() <= bounds.max):
            raise Malformed(f"input {kind.name!r}: {kind.datatype} is a whole number in {bounds.min}..{bounds.max}")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _strings(data: list[Any], rank: int, kind: TensorType) -> Array:
    for _ in range(rank - 1):
        if data and all(isinstance(part, list) for part in data):
            data = [item for part in data for item in part]
    if not all(isinstance(item, str | None) for item in data):
        raise Malformed(f"input {kind.name!r}: data is nested unevenly")
    return elements([b"" if item is None else item.encode() for item in data])


def _unframed(data: memoryview, count: int, name: str) -> Array:
    """Return `count` elements, each after its length as a 32-bit number."""
    items: list[bytes] = []
    while data:
        size = int.from_bytes(data[:4], "little")
        if len(data) < 4 or size > len(data) - 4:
            raise Malformed(f"input {name!r}: element {len(items)} is longer than the data that is left")
        if len(items) == count:
            raise Malformed(f"input {name!r} has more than the {count} elements of its shape")
        items.append(bytes(data[4 : 4 + size]))
        data = data[4 + size :]
    if len(items) != count:
        raise Malformed(f"input {name!r} has {len(items)} elements, its shape has {shown(count)}")
    return elements(items)


def _word(value: Any) -> bytes:
    return b"NaN" if np.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
