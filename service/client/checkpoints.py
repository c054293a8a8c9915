"""Serialize a checkpoint for its upload: a file, a network, or a state_dict of torch or NumPy."""

import io
import json
import sys
from collections.abc import Mapping
from typing import Any

from service.client import bundles, files, numbers
from service.client.errors import BadArgument, first_line

MOST_BYTES = 4_294_967_296
# NumPy's type characters -> names in the safetensors format (https://huggingface.co/docs/safetensors, Format).
_DTYPES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u8": "U64", "u4": "U32",
    "u2": "U16", "u1": "U8", "b1": "BOOL",
}  # fmt: skip


def content(checkpoint: Any) -> bytes | files.Upload:
    """Return the bytes of a checkpoint file; those of a path are read while they are sent. Raises BadArgument.

    If the record next to the file of a path names artifacts, they are sent with it, as a bundle.

    `checkpoint` is a path, bytes or an open file, as torch.save or safetensors writes it; a network, or anything else
    with a state_dict method; or a state_dict: a mapping of names to tensors of torch or arrays of NumPy.
    """
    if files.is_regular(checkpoint):
        return bundles.upload(files.Content(checkpoint))
    if files.is_file(checkpoint):
        return files.read(checkpoint, MOST_BYTES)[0]
    if isinstance(checkpoint, type):
        raise BadArgument(f"{checkpoint.__name__} is a class: pass a network, an object of this class")
    state = checkpoint.state_dict() if callable(getattr(checkpoint, "state_dict", None)) else checkpoint
    if not isinstance(state, Mapping):
        raise BadArgument(
            f"a checkpoint is a path, bytes, a file open in binary mode, a state_dict or a network, not "
            f"{type(checkpoint).__name__}"
        )
    if not state:
        raise BadArgument("the state_dict is empty")
    for name, value in state.items():
        if not isinstance(name, str) or not numbers.is_array(value):
            raise BadArgument(
                f"{name!r} is of type {type(value).__name__}, not a tensor: pass the mapping of names to tensors, "
                "such as network.state_dict()"
            )
    if any(hasattr(value, "detach") for value in state.values()):
        return _of_torch(state)
    return _of_numpy(state)


def _of_torch(state: Mapping[str, Any]) -> bytes:
    torch = sys.modules.get("torch")  # imported by the caller, whose tensors these are
    if torch is None:
        raise BadArgument("the state_dict has tensors of another library than torch: pass a safetensors file")
    file = io.BytesIO()
    try:  # copied: a view would be saved with all that it is a view of
        torch.save({name: torch.as_tensor(value).detach().cpu().clone() for name, value in state.items()}, file)
    except (RuntimeError, TypeError, ValueError, AttributeError) as err:
        raise BadArgument(f"the state_dict cannot be saved ({first_line(err)})") from err
    return file.getvalue()


def _of_numpy(state: Mapping[str, Any]) -> bytes:
    """Serialize arrays in the safetensors format: length of the header, header as JSON, data."""
    header: dict[str, Any] = {}
    data = []
    at = 0
    for name, value in state.items():
        array = numbers.as_array(value)
        array = array.astype(array.dtype.newbyteorder("<"), order="C")
        dtype = _DTYPES.get(array.dtype.str[1:])
        if dtype is None:
            raise BadArgument(f"{name} has dtype {array.dtype.name}: a state_dict holds numbers")
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        data.append(array.tobytes())
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *data])
