"""Values by name as bytes: JSON, and after it the bytes of arrays. For the rows of datasets and for captures."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

_LENGTH = struct.Struct("<I")
_ARRAY = "array"  # key of an array's description in the JSON part of a row


def packed_row(sample: Mapping[str, Any]) -> bytes:
    """Encode values by name: JSON, and after it the bytes of arrays."""
    arrays: list[bytes] = []

    def described(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value).tobytes())
            return {_ARRAY: [value.dtype.str, value.shape]}
        return value

    head = orjson.dumps({name: described(value) for name, value in sample.items()}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([_LENGTH.pack(len(head)), head, *arrays])


def unpacked_row(content: bytes) -> dict[str, Any]:
    """Decode the result of `packed_row`."""
    (length,) = _LENGTH.unpack_from(content)
    place = _LENGTH.size + length
    found: dict[str, Any] = orjson.loads(content[_LENGTH.size : place])
    for name, value in found.items():
        if isinstance(value, dict):
            dtype, shape = np.dtype(value[_ARRAY][0]), tuple(value[_ARRAY][1])
            count = int(np.prod(shape))
            found[name] = np.frombuffer(content, dtype, count, place).reshape(shape)
            place += count * dtype.itemsize
    return found
