"""Checks of a torch.save archive before PyTorch reads it: declared sizes, classes in the pickle. Needs no torch.

The directory is parsed as PyTorch's own zip reader (miniz) does, so that both see the same members. Nothing is unpacked
but the pickle, which is scanned and not unpickled.
"""

import pickletools
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from models.checkpoints.forms import of_members
from models.errors import CheckpointError, shown

START = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_FOLDER = 0x10  # of DOS's attributes
_LOCAL = 30  # bytes of a local header
_PIECE = 2**16  # bytes; deflate expands them a thousandfold at most
_MAX_PICKLE = 4 * 2**20  # bytes; a state_dict of 25,000 tensors has as many
_DAMAGED = "it is damaged or incomplete. Write it again with torch.save(network.state_dict(), FILE)"

# The globals in the pickle of a state_dict. PyTorch's weights_only allows more: functions that allocate memory of any
# declared size, and types that no state_dict needs.
_TENSORS = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor_v2|tensor_v3|parameter|parameter_with_state|sparse_tensor)"
    r"|torch\._utils\._rebuild_meta_tensor_no_storage"
    r"|torch\.nn\.parameter\.Parameter"
    r"|torch\.serialization\._get_layout"
    r"|torch\.(Size|device)"
    r"|torch(\.storage)?\.[A-Z][A-Za-z0-9]*Storage"
    r"|torch\.(b?float|complex|u?int|half|double|long|short|bool)[a-z0-9_]*",
)
_KINDS = {
    "torch._utils._rebuild_qtensor": "a quantised tensor{dtype}: save its dequantize()",
    "torch._utils._rebuild_nested_tensor": "a nested tensor: save dense tensors",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass: save plain tensors",
    "torch._tensor._rebuild_from_type_v2": (
        "a tensor subclass, or a tensor with attributes: save tensor.detach().as_subclass(torch.Tensor)"
    ),
    "torch.nn.parameter.UninitializedParameter": "a parameter without numbers: call the network once before saving",
    "torch.nn.parameter.UninitializedBuffer": "a buffer without numbers: call the network once before saving",
    "torch.distributed.tensor.DTensor": "a DTensor: save its full_tensor()",
}
_QUANTISED = re.compile(rb"ctorch\n(QU?Int\d+(?:x\d)?)Storage\n")
_CLASS = re.compile(r"[A-Za-z_][\w.]{0,99}")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a zip archive: `packed` bytes in the file, `size` bytes unpacked with CRC-32 `crc`, local header at
    `at`.
    """

    name: str
    method: int
    packed: int
    size: int
    at: int
    crc: int


def check(content: bytes, name: str) -> int:
    """Check an archive and return the size that it declares to have unpacked. `name` is used in error messages.

    Raises CheckpointError.
    """
    try:
        members = list(_members(content))
    except (struct.error, ValueError) as err:
        raise _refused(name, _DAMAGED) from err
    names = [member.name for member in members]
    if said := of_members(names):
        raise _refused(name, said)
    lower = Counter(map(str.lower, names))  # PyTorch's reader ignores the case
    (twice, count), *_ = lower.most_common(1)
    if count > 1:
        raise _refused(name, f"it has {count} members named {shown(twice)}. Write it again with torch.save")
    folder = names[0].partition("/")[0]  # PyTorch takes the folder of the first member
    for member in members:
        if member.name == f"{folder}/data.pkl":
            _check_pickle(content, name, member)
            return sum(member.size for member in members)
    raise _refused(name, _DAMAGED)


def require_whole(content: bytes, name: str) -> None:
    """Compare each member with its CRC-32, which PyTorch does not: it would load changed numbers without a word.

    `content` has passed `check`, and its declared size is acceptable. Raises CheckpointError.
    """
    for member in _members(content):
        if member.crc and not _is_whole(content, member):  # 0: torch.serialization.set_crc32_options(False)
            raise _refused(name, f"{shown(member.name)} is damaged (CRC-32 differs). Copy the file again")


def _is_whole(content: bytes, member: Member) -> bool:
    start, found = _start(content, member), 0
    inflating = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == _DEFLATED else None
    try:
        for at in range(start, start + member.packed, _PIECE):
            piece = memoryview(content)[at : min(at + _PIECE, start + member.packed)]
            found = zlib.crc32(piece if inflating is None else inflating.decompress(piece), found)
    except zlib.error:
        return False
    return found == member.crc


def _check_pickle(content: bytes, name: str, member: Member) -> None:
    """Check the classes in the pickle. Raises CheckpointError that names the first one that no state_dict has."""
    if member.size > _MAX_PICKLE:
        raise _refused(name, f"its data.pkl has {member.size:,} bytes, more than those of any state_dict")
    key = ""
    try:
        pickled = _read(content, member)
        for opcode, argument, at in pickletools.genops(pickled):
            if opcode.name in {"BINUNICODE", "SHORT_BINUNICODE"}:
                key = str(argument)
            elif opcode.name == "GLOBAL" and not _TENSORS.fullmatch(found := str(argument).replace(" ", ".")):
                raise _refused(name, _foreign(key, found, pickled[at or 0 :]))
    except (ValueError, IndexError, struct.error, zlib.error) as err:
        raise _refused(name, _DAMAGED) from err


def _foreign(key: str, found: str, rest: bytes) -> str:
    """Describe an object that is not a dense tensor of a state_dict, between `key` and `rest` in the pickle."""
    kind = _KINDS.get(found)
    if kind is not None:
        storage = _QUANTISED.search(rest)
        kind = kind.format(dtype=f" ({storage[1].decode().lower()})" if storage else "")
    if kind is None:
        kind = f"an object of the class {found}" if _CLASS.fullmatch(found) else "an object of another class"
        kind += ", which is never unpickled. Write only the tensors, with torch.save(network.state_dict(), FILE)"
    return f"{shown(key)} is {kind}" if key else f"it is {kind}"


def _refused(name: str, said: str) -> CheckpointError:
    return CheckpointError(f"{name} is not a state_dict file: {said}")


def _members(content: bytes) -> Iterator[Member]:
    """Yield the members in the directory. Raises ValueError or struct.error if it is damaged."""
    end = content.rfind(b"PK\x05\x06", 0, max(len(content) - 18, 0))
    if end < 0:
        raise ValueError("no end record")
    count, size, at = struct.unpack_from("<10xHLL", content, end)
    locator = end - 20
    if locator >= 0 and content[locator : locator + 4] == b"PK\x06\x07":
        (record,) = struct.unpack_from("<8xQ", content, locator)
        if content[record : record + 4] == b"PK\x06\x06":
            count, size, at = struct.unpack_from("<32xQQQ", content, record)
    if at + size > len(content) or count * 46 > size:
        raise ValueError("directory out of bounds")
    for _ in range(count):
        signature, method, crc, packed, unpacked, name, extra, comment, attributes, local = struct.unpack_from(
            "<4s6xH4xLLLHHH4xLL", content, at
        )
        if signature != b"PK\x01\x02":
            raise ValueError("damaged directory")
        text = content[at + 46 : at + 46 + name].decode("utf-8")
        fields = content[at + 46 + name : at + 46 + name + extra]
        unpacked, packed, local = _in_64_bits(fields, (unpacked, packed, local))
        if method not in {_STORED, _DEFLATED} or (method == _STORED and packed != unpacked):
            raise ValueError("unknown compression")
        if attributes & _FOLDER:
            raise ValueError("a folder")  # PyTorch reads nothing into its memory, which has any numbers
        if local + _LOCAL + packed > len(content):
            raise ValueError("member out of bounds")
        yield Member(text, method, packed, unpacked, local, crc)
        at += 46 + name + extra + comment


def _in_64_bits(fields: bytes, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replace the sizes that do not fit 32 bits by those in the first zip64 field."""
    at = 0
    while at + 4 <= len(fields):
        kind, length = struct.unpack_from("<HH", fields, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", fields, at + 4))
            first, second, third = (next(wide, size) if size == 0xFFFFFFFF else size for size in sizes)
            return first, second, third
        at += 4 + length
    return sizes


def _start(content: bytes, member: Member) -> int:
    """Return where the bytes of a member begin. Raises struct.error."""
    name, extra = struct.unpack_from("<26xHH", content, member.at)
    return int(member.at + _LOCAL + name + extra)


def _read(content: bytes, member: Member) -> bytes:
    """Return the unpacked bytes of a member. Raises zlib.error, ValueError or struct.error if it is damaged."""
    start = _start(content, member)
    packed = content[start : start + member.packed]
    if member.method == _STORED:
        return packed
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(member.size, 1))
    if len(unpacked) != member.size:
        raise ValueError("damaged member")
    return unpacked
