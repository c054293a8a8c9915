"""Checkpoint files of every kind that users send, and crafted archives."""

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

LAYOUTS = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
QUANTISED = ("qint8", "quint8", "qint32")


def saved(value: object, **options: Any) -> bytes:
    """The bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@cache
def dtypes() -> tuple[torch.dtype, ...]:
    """Every dtype of which this PyTorch makes and saves a plain tensor."""
    found = []
    for dtype in dict.fromkeys(value for value in vars(torch).values() if isinstance(value, torch.dtype)):
        try:
            with warnings.catch_warnings(action="ignore"):
                saved(torch.zeros(1).to(dtype))
        except (RuntimeError, TypeError, KeyError, NotImplementedError, AttributeError):
            continue
        found.append(dtype)
    return tuple(found)


def as_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers in another layout, on the meta device, or quantised."""
    if layout == "meta":
        return tensor.to("meta")
    if layout in QUANTISED:
        return torch.quantize_per_tensor(tensor, 0.1, 0, getattr(torch, layout))
    if layout == "per_channel":
        return torch.quantize_per_channel(tensor, torch.ones(len(tensor)), torch.zeros(len(tensor)), 0, torch.qint8)
    if layout == "nested":
        return torch.nested.nested_tensor([tensor, tensor])
    blocks = (1, 1) if layout in {"sparse_bsr", "sparse_bsc"} else None
    sparse: Tensor = tensor.to_sparse(layout=getattr(torch, layout), blocksize=blocks)
    return sparse


def rezipped(content: bytes, *, method: int = zipfile.ZIP_STORED, changed: Mapping[str, bytes] | None = None) -> bytes:
    """The same members, compressed or not; `changed` replaces those whose path ends so."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, (changed or {}).get(name.partition("/")[2], old.read(name)))
    return out.getvalue()


def with_pickle(pickled: bytes, storage: bytes = bytes(4)) -> bytes:
    """A file of one storage with this pickle."""
    return rezipped(saved({"slope": torch.ones(1)}), changed={"data.pkl": pickled, "data/0": storage})


@cache
def _zeros(megabytes: int) -> tuple[bytes, int]:
    """So many MB of zeros, deflated, and their checksum."""
    deflate, checksum = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    packed = []
    for _ in range(megabytes):
        packed.append(deflate.compress(bytes(2**20)))
        checksum = zlib.crc32(bytes(2**20), checksum)
    return b"".join([*packed, deflate.flush()]), checksum


def bomb(megabytes: int, member: str = "data/0") -> bytes:
    """A small file with one member that inflates to so many MB."""
    packed, checksum = _zeros(megabytes)
    marker = b"\xa5" * 64
    content = rezipped(saved({"slope": torch.ones(1)}), changed={member: marker})
    at = content.index(marker)
    local, central = content.index(f"/{member}".encode()), content.rindex(f"/{member}".encode())
    return _replaced(content, at, len(marker), packed, (checksum, len(packed), megabytes * 2**20), local, central)


def _replaced(
    content: bytes, at: int, length: int, packed: bytes, sizes: tuple[int, int, int], local: int, central: int
) -> bytes:
    """Put deflated bytes in the place of a stored member, and correct the headers and the end record."""
    local, central = content.rindex(b"PK\x03\x04", 0, local), content.rindex(b"PK\x01\x02", 0, central)
    parts = bytearray(content)
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<H", parts, local + 8, zipfile.ZIP_DEFLATED)
    struct.pack_into("<LLL", parts, local + 14, *sizes)
    struct.pack_into("<H", parts, central + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<LLL", parts, central + 16, *sizes)
    more = len(packed) - length
    (directory,) = struct.unpack_from("<L", parts, end + 16)
    struct.pack_into("<L", parts, end + 16, directory + more)
    header = directory
    while header < end:  # members after the replaced one start later
        name, extra, comment, start = struct.unpack_from("<HHH8xL", parts, header + 28)
        if start > local:
            struct.pack_into("<L", parts, header + 42, start + more)
        header += 46 + name + extra + comment
    return bytes(parts[:at]) + packed + bytes(parts[at + length :])


def safetensors_of(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
