"""Checks of a safetensors file before its reader parses it, and words for what is wrong with it. Needs no torch.

Format: 8 bytes with the length of the header, the header as JSON, the numbers of the tensors without gaps
(https://huggingface.co/docs/safetensors, Format).
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import CheckpointError, shown

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32,
    "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_MAX_HEADER = 4 * 2**20  # bytes; a state_dict of 25,000 tensors has as many, and each takes memory and time
_MOST_AXES = 64  # of a tensor of PyTorch
_METADATA = "__metadata__"
_OTHER = "its header is not valid"
_AGAIN = "Write it again with safetensors.torch.save_file"
_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


def is_safetensors(content: bytes) -> bool:
    """Return whether a file begins as one of this format."""
    return content[8:9] == b"{" and content[:1] != b"{"


def check(content: bytes, name: str) -> None:
    """Check the length of the header, and its names. `name` is used in error messages. Raises CheckpointError."""
    (length,) = struct.unpack_from("<Q", content)
    if length > len(content) - 8:
        raise _damaged(name, f"its header has {length:,} bytes, the file fewer")
    if length > _MAX_HEADER:
        raise CheckpointError(
            f"{name} is not a state_dict file: its header has {length:,} bytes, more than that of any state_dict"
        )
    try:
        pairs = json.loads(content[8 : 8 + length], object_pairs_hook=list)
        (twice, count), *_ = Counter(key for key, _ in pairs).most_common(1) or [("", 0)]
    except _ERRORS as err:
        raise _damaged(name, f"its header is not a JSON object. {_AGAIN}") from err
    if count > 1:
        raise _damaged(name, f"it has {count} tensors named {shown(twice)}. {_AGAIN}")


def refused(content: bytes, name: str) -> CheckpointError:
    """Return the error for a file that passed `check` and that the reader of the format refuses."""
    (length,) = struct.unpack_from("<Q", content)
    try:
        header: dict[str, Any] = json.loads(content[8 : 8 + length])
        metadata = header.pop(_METADATA, None) or {}
        unknown = [f"{shown(key)} ({shown(str(one['dtype']))})" for key, one in header.items() if _unknown(one)]
        if unknown:
            dtypes = ", ".join(unknown[:5])
            return CheckpointError(f"{name} has tensors of dtypes that cannot be read: {dtypes}. Save tensor.float()")
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            return _damaged(name, f"its {_METADATA} is not an object of texts. {_AGAIN}")
        why = next(_faults(header, len(content) - 8 - length), _OTHER)
    except _ERRORS:
        why = _OTHER
    return _damaged(name, f"{why}. {_AGAIN}")


def _damaged(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} is a damaged safetensors file: {why}")


def _unknown(entry: Any) -> bool:
    return isinstance(entry, dict) and "dtype" in entry and str(entry["dtype"]) not in _BITS


def _faults(header: Mapping[str, Any], size: int) -> Iterator[str]:
    """Yield what is wrong with the tensors of a header, for `size` bytes of numbers."""
    for key, entry in header.items():
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            yield f"{shown(key)} has no dtype, shape and data_offsets"
        elif not _are_counts(entry["shape"]) or len(entry["shape"]) > _MOST_AXES:
            yield f"the shape of {shown(key)} is not a list of at most {_MOST_AXES} whole numbers"
        elif not _are_counts(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
            yield f"the data_offsets of {shown(key)} are not two whole numbers"
    places = sorted((*entry["data_offsets"], key) for key, entry in header.items())
    for begin, end, key in places:
        entry = header[key]
        bits = math.prod(entry["shape"]) * _BITS[entry["dtype"]]
        if end > size:
            yield f"{shown(key)} ends at byte {end:,} of {size:,}: the file is incomplete, or the offset is wrong"
        elif (end - begin) * 8 != bits:
            shape = shown(str(entry["shape"]))
            yield f"{shown(key)} has {end - begin:,} bytes, which its shape {shape} of {entry['dtype']} does not take"
    last, before = 0, "the header"
    for begin, end, key in [*places, (size, size, "the end")]:
        if begin != last:
            between = "overlap" if begin < last else "have bytes between them that no tensor has"
            yield f"{shown(before)} and {shown(key)} {between}"
        last, before = end, key


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**63 for one in value)
