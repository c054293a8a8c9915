"""Files in a zip, a tar or a folder: listed first, with bounds and without hostile names, then read in order."""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from models.errors import shown
from training.datasets.errors import DatasetError
from training.datasets.readers.files import require_unpacked

MOST_MEMBER = 2**28  # bytes of a file that is read whole: a picture
_MOST_MEMBERS = 2_000_000
_MOST_DIRECTORY = 2**28  # bytes of a zip's central directory, which zipfile reads whole
_MOST_NAME = 1_000  # characters
MOST_NAMES = 2**27  # characters of all names
_MOST_XZ = 2**27  # bytes of the dictionary that an xz file declares
_MOST_HEADERS = 2**20  # bytes between two members of a tar: its headers
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 1
_BLOCK = 2**20
_END = b"PK\x05\x06"
_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "lost+found", "$recycle.bin"}
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file: its name relative to the root, with /, and its size."""

    name: str
    size: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the folders and the name of the file."""
        return PurePosixPath(self.name).parts


class Archive(Protocol):
    """Files that are listed once, and then read in the order of the list."""

    members: list[Member]
    size: int

    def contents(self) -> Iterator[tuple[Member, bytes | None]]:
        """Yield each file with its content; None if it is damaged, or larger than MOST_MEMBER."""
        ...

    def extract(self, names: dict[str, Path]) -> None:
        """Write files of any size to these paths. Raises DatasetError for a bomb."""
        ...


def is_hidden(name: str) -> bool:
    """Return whether a file or one of its folders is hidden, or of the operating system."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in PurePosixPath(name).parts)


def _safe(name: str) -> str:
    """Return the name of a member. Raises DatasetError for a name that leads out of the archive."""
    parts = name.replace("\\", "/").split("/")
    hostile = name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (len(name) > 1 and name[1] == ":")
    found = "/".join(part for part in parts if part not in {"", "."})
    if hostile or not found or len(name) > _MOST_NAME:
        raise DatasetError(
            "Hostile name", f"the archive has a file {shown(name)!r}: names are relative, without .., and not too long"
        )
    return found


class Zip:
    """A zip file."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetError."""
        self.size = path.stat().st_size
        self._path = path
        _require_directory(path, self.size)
        self.members: list[Member] = []
        self._infos: list[zipfile.ZipInfo] = []
        total = 0
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (*_DAMAGED, NotImplementedError, ValueError, OSError) as err:
            raise DatasetError("Damaged file", "the zip file is damaged or cut short: pack it again") from err
        _require_count(len(infos))
        for info in infos:
            if not info.filename.strip("./\\") and info.is_dir():  # the root
                continue
            name = _safe(info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DatasetError("Link", f"{shown(name)!r} is a link: pack the files themselves")
            if info.is_dir() or is_hidden(name):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise DatasetError("Encrypted file", "the zip file has a password: pack it without one")
            if info.compress_type not in _METHODS:
                raise DatasetError("Unknown compression", "the zip file is not stored or deflated: pack it again")
            total += info.file_size
            require_unpacked(total, self.size)
            self.members.append(Member(name, info.file_size))
            self._infos.append(info)

    def contents(self) -> Iterator[tuple[Member, bytes | None]]:
        """See Archive."""
        with zipfile.ZipFile(self._path) as archive:
            for member, info in zip(self.members, self._infos, strict=True):
                yield member, _read(archive, info)

    def extract(self, names: dict[str, Path]) -> None:
        """See Archive."""
        with zipfile.ZipFile(self._path) as archive:
            for member, info in zip(self.members, self._infos, strict=True):
                if member.name in names:
                    with _damage(member), archive.open(info) as file:
                        _copy(file, names[member.name], member)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    """Read as many bytes as the member declares: without a size, zipfile would unpack all that it has."""
    if info.file_size > MOST_MEMBER:
        return None
    try:
        with archive.open(info) as file:
            return file.read(info.file_size + 1)
    except (*_DAMAGED, NotImplementedError, ValueError, RuntimeError):
        return None


def _require_directory(path: Path, size: int) -> None:
    """Raise DatasetError if the list of members is too long to be read: its length is in the last record."""
    with path.open("rb") as file:
        file.seek(max(0, size - 66_000))
        tail = file.read()
    place = tail.rfind(_END)
    if place < 0:
        raise DatasetError("Damaged file", "the zip file is damaged or cut short: pack it again")
    length = int.from_bytes(tail[place + 12 : place + 16], "little")
    if length == 0xFFFFFFFF:
        record = tail.rfind(b"PK\x06\x06", 0, place)
        length = int.from_bytes(tail[record + 40 : record + 48], "little") if record >= 0 else length
    if min(length, size) > _MOST_DIRECTORY:
        raise DatasetError("Too many files", "the list of files in the zip is too long: send it in parts")


class Tar:
    """A tar file, plain or packed by gzip, bzip2 or xz: read from its begin to its end, never sought in."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetError."""
        self.size = path.stat().st_size
        self._path = path
        self.members = []
        characters = 0
        for info, _ in self._walk():
            self.members.append(Member(_safe(info.name), info.size))
            characters += len(info.name)
            _require_count(len(self.members), characters)

    def contents(self) -> Iterator[tuple[Member, bytes | None]]:
        """See Archive."""
        for member, (_, file) in zip(self.members, self._walk(), strict=True):
            yield member, file.read() if member.size <= MOST_MEMBER else None

    def extract(self, names: dict[str, Path]) -> None:
        """See Archive."""
        for member, (_, file) in zip(self.members, self._walk(), strict=True):
            if member.name in names:
                _copy(file, names[member.name], member)

    def _walk(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        """Yield the regular files that are not hidden. Raises DatasetError for links, devices, bombs and damage."""
        with _damage(), self._path.open("rb") as raw, _unpacked_tar(raw) as stream:
            bounded = _Bounded(stream, self.size)
            with tarfile.open(fileobj=bounded, mode="r|", bufsize=10_240) as archive:  # type: ignore[call-overload]
                while True:
                    bounded.allow(_MOST_HEADERS)
                    info = archive.next()
                    if info is None:
                        return
                    archive.members = []  # it would keep all of them
                    if info.isdir() and not info.name.strip("./"):  # the root
                        continue
                    name = _safe(info.name)
                    if info.isdir():
                        continue
                    if not info.isreg() or info.issparse():
                        raise DatasetError("No regular file", f"{shown(name)!r} is a link or a device: pack files only")
                    bounded.allow(info.size + _MOST_HEADERS)
                    file = archive.extractfile(info)
                    assert file
                    if is_hidden(name):
                        _skip(file)
                    else:
                        yield info, file
                        _skip(file)


class _Bounded:
    """A stream that gives no more than was allowed: headers of a tar declare lengths that are read into memory."""

    def __init__(self, stream: IO[bytes], packed: int) -> None:
        self._stream = stream
        self._packed = packed
        self._given = 0
        self._allowed = _MOST_HEADERS

    def allow(self, size: int) -> None:
        """Allow `size` more bytes from here on."""
        self._allowed = self._given + size

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        content = self._stream.read(size)
        self._given += len(content)
        require_unpacked(self._given, self._packed)
        if self._given > self._allowed:
            raise DatasetError("Damaged file", "a header of the tar file is too long")
        return content


@contextmanager
def _unpacked_tar(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    head = raw.read(6)
    raw.seek(0)
    opened: Any = raw
    if head.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=raw)
    elif head.startswith(b"\xfd7zXZ\0"):
        opened = _Xz(raw)
    yield opened


class _Xz:
    """An xz stream, unpacked with a limit on the dictionary that its header declares: 4 GB of memory otherwise."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = _xz_decoder()

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes. Raises DatasetError for a giant dictionary, LZMAError and EOFError for damage."""
        while True:
            content = self._raw.read(65_536) if self._decoder.needs_input else b""
            if self._decoder.eof:
                content = self._decoder.unused_data.lstrip(b"\0") or self._raw.read(65_536).lstrip(b"\0")
                if not content:
                    return b""
                self._decoder = _xz_decoder()
            elif not content and self._decoder.needs_input:
                raise EOFError("the xz file is cut short")
            try:
                found = self._decoder.decompress(content, size)
            except lzma.LZMAError as err:
                if "limit" in str(err):
                    raise DatasetError(
                        "Unpacks to too much", f"its xz dictionary has more than {_MOST_XZ:,} bytes: pack it with xz -6"
                    ) from err
                raise
            if found:
                return found


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ + 2**20)


class Folder:
    """A folder of this machine. Links to files are read, links to folders are not followed."""

    def __init__(self, path: Path) -> None:
        """Raises DatasetError."""
        self._path = path
        self.members = []
        self.size = 0
        for folder, _, files in os.walk(path):
            for name in files:
                file = Path(folder) / name
                relative = file.relative_to(path).as_posix()
                if not is_hidden(relative) and file.is_file():
                    self.members.append(Member(relative, file.stat().st_size))
                    self.size += self.members[-1].size
                    _require_count(len(self.members))
        self.members.sort(key=lambda member: member.name)

    def contents(self) -> Iterator[tuple[Member, bytes | None]]:
        """See Archive."""
        for member in self.members:
            try:
                content = (self._path / member.name).read_bytes() if member.size <= MOST_MEMBER else None
            except OSError:
                content = None
            yield member, content

    def extract(self, names: dict[str, Path]) -> None:
        """See Archive."""
        for member in self.members:
            if member.name in names:
                with (self._path / member.name).open("rb") as file:
                    _copy(file, names[member.name], member)


def _require_count(count: int, characters: int = 0) -> None:
    if count > _MOST_MEMBERS:
        raise DatasetError("Too many files", f"the archive has more than {_MOST_MEMBERS:,} files: send it in parts")
    if characters > MOST_NAMES:
        raise DatasetError(
            "Too many files", f"the names in the archive have more than {MOST_NAMES:,} characters: send it in parts"
        )


def _skip(file: IO[bytes]) -> None:
    while file.read(_BLOCK):
        pass


def _copy(file: IO[bytes], target: Path, member: Member) -> None:
    """Write at most as many bytes as the member declares, whose sum is bounded. Raises DatasetError for more."""
    left = member.size
    with target.open("wb") as out:
        while block := file.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise DatasetError("Damaged file", f"{shown(member.name)!r} is longer than the archive says")
            out.write(block)


@contextmanager
def _damage(member: Member | None = None) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGED, RuntimeError, NotImplementedError, ValueError) as err:
        what = f"{shown(member.name)!r} in the archive" if member else "the tar file"
        raise DatasetError("Damaged file", f"{what} is damaged or cut short: pack it again") from err
