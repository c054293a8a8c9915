""".npz files in memory: a zip archive of .npy members. No file is written, and nothing is unpickled."""

import io
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from models.entries import read_npy
from models.errors import InvalidInput, MalformedInput
from models.spec import Array

_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_MOST_MEMBERS = 1024
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 1  # flag of a member


def read_npz(content: bytes, max_bytes: int) -> dict[str, Array]:
    """Return the arrays of an .npz file by name. Pickled arrays are refused, as are archives that unpack to too much.

    The sizes are those that the members declare; no more is read of each. Raises MalformedInput, InvalidInput.
    """
    if not content.startswith(_STARTS):
        raise MalformedInput("No .npz file", "the body is not an .npz file; write it with numpy.savez")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > max_bytes or len(members) > _MOST_MEMBERS:
                size = f"{total} bytes in {len(members)} arrays, at most {max_bytes} in {_MOST_MEMBERS} are read"
                raise InvalidInput("Too large", f"the .npz file unpacks to {size}: send less at once")
            if any(member.compress_type not in _METHODS or member.flag_bits & _ENCRYPTED for member in members):
                raise MalformedInput("No .npz file", "a member of the .npz file is not stored or deflated")
            return {member.filename.removesuffix(".npy"): read_npy(_read(archive, member)) for member in members}
    except InvalidInput:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError) as err:
        raise MalformedInput("No .npz file", "the .npz file is damaged; write it with numpy.savez") from err


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read as many bytes as the member declares: without a size, zipfile would unpack all that it has first."""
    with archive.open(member) as file:
        return file.read(member.file_size)


def write_npz(arrays: Mapping[str, Array]) -> bytes:
    """Write arrays as numpy.savez does, which takes no array of the name "file"."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return content.getvalue()
