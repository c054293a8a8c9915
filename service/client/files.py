"""Read the bytes behind an argument: a path, an open file, or bytes. Every failure is a BadArgument.

No more than a stated number of bytes is read: a path may lead to a device or pipe without an end.
"""

import array
import io
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from service.client.errors import BadArgument, first_line

MOST_BYTES = 268_435_456  # of the files of a request; by default the service takes 16 MiB
_MOST_SHOWN = 200  # characters of a path in a message
_PIECE = 262_144  # bytes


class Upload(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Bytes and the contents of files as the body of a request, read while it is sent."""

    def __init__(self, *parts: "bytes | Content") -> None:
        self._parts = parts
        self.size = sum(len(part) if isinstance(part, bytes) else part.size for part in parts)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            yield from (part,) if isinstance(part, bytes) else part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class Content:
    """The content of a file, in pieces. The constructor raises BadArgument if it cannot be opened or is empty."""

    def __init__(self, item: str | os.PathLike[Any]) -> None:
        with _opened(item) as file:
            self.path = Path(os.fsdecode(item)).expanduser()
            self.size = os.fstat(file.fileno()).st_size
        if not self.size:
            raise BadArgument(f"{_shown(os.fsdecode(item))} is empty: 0 bytes")

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


@dataclass(frozen=True, slots=True)
class Target:
    """A file for the content of a response, which is written as it arrives, if it has this media type."""

    path: Path
    media_type: str

    def takes(self, response: httpx.Response) -> bool:
        """Return whether the content of a response belongs into the file."""
        return response.is_success and response.headers.get("content-type", "").startswith(self.media_type)

    def written(self, response: httpx.Response) -> Path:
        """Return the path of the file. Raises ValueError if the response was not written to it."""
        if not self.takes(response):
            raise ValueError("another media type")
        return self.path


def is_regular(item: Any) -> bool:
    """Return whether an item is the path of a regular file."""
    return isinstance(item, str | os.PathLike) and os.path.isfile(os.path.expanduser(item))  # noqa: PTH111, PTH113 - names of bytes, too; no error for odd ones


def path(item: Any) -> Path:
    """Return a path, with the home folder for `~`. Raises BadArgument if it is none."""
    try:
        found = Path(os.fsdecode(item)).expanduser()
        os.fsencode(found)
    except (TypeError, ValueError, RuntimeError) as err:  # characters that are not valid Unicode; no home folder
        raise BadArgument(f"a value of type {type(item).__name__} is not a path ({first_line(err)})") from err
    return found


def is_file(item: Any) -> bool:
    """Return whether `read` accepts an item. Memory that holds other items than bytes is an array, not a file."""
    return _is_bytes(item) or isinstance(item, str | os.PathLike) or _is_open(item)


def read(item: Any, most: int = MOST_BYTES) -> tuple[bytes, str]:
    """Return the content of at most `most` bytes, and the name of the file or "".

    Raises BadArgument, also if there is more, or no content.
    """
    if _is_bytes(item):
        content, name = bytes(item), ""
    elif _is_open(item):
        content, name = _read_open(item, most)
    else:
        content, name = _read_path(item, most)
    if not content:
        raise BadArgument(f"{_shown(name) or 'the content'} is empty: 0 bytes")
    if len(content) > most:
        raise _too_large(name, most)
    return content, name


def _too_large(name: str, most: int) -> BadArgument:
    shown = _shown(name) or "the content"
    return BadArgument(f"{shown} has more than {most:,} bytes, the most that is read: name a smaller file")


def _is_bytes(item: Any) -> bool:
    if isinstance(item, memoryview):
        return item.ndim == 1 and item.format in {"B", "b", "c"}
    return isinstance(item, bytes | bytearray) or (isinstance(item, array.array) and item.typecode in "Bb")


def _is_open(item: Any) -> bool:
    return not isinstance(item, type) and callable(getattr(item, "read", None))


def _read_path(item: Any, most: int) -> tuple[bytes, str]:
    name = os.fsdecode(item)
    with _opened(item) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size > most:
            raise _too_large(name, most)
        return _read(file, most + 1, name), name


def _read(file: IO[bytes], size: int, name: str) -> bytes:
    """Read at most `size` bytes. Raises BadArgument."""
    try:
        return file.read(size)
    except OSError as err:
        raise BadArgument(f"{_shown(name)} cannot be read ({err.strerror})") from err


def _opened(item: Any) -> IO[bytes]:
    name = os.fsdecode(item) if not isinstance(item, str) else item
    try:
        return Path(name).expanduser().open("rb")
    except IsADirectoryError as err:
        raise BadArgument(f"{_shown(name)} is a folder: name the files in it") from err
    except OSError as err:
        way_out = ": the client reads files of this machine: fetch it and pass its bytes" if "://" in name else ""
        raise BadArgument(f"{_shown(name)} cannot be opened ({err.strerror}){way_out}") from err
    except (ValueError, RuntimeError) as err:  # a null character; ~ without a home folder
        raise BadArgument(f"{_shown(name)!r} is not a path ({first_line(err)})") from err


def _read_open(item: Any, most: int) -> tuple[bytes, str]:
    name = item.name if isinstance(getattr(item, "name", None), str) else ""
    shown = _shown(name) or "the file"
    in_text_mode = f'{shown} is open in text mode: open it with mode "rb"'
    if isinstance(item, io.TextIOBase):
        raise BadArgument(in_text_mode)
    try:
        content = _start_of(item, most + 1)
    except (OSError, ValueError, RuntimeError, TypeError, EOFError) as err:  # closed, or open for writing only
        raise BadArgument(f"{shown} cannot be read ({first_line(err)})") from err
    if hasattr(content, "__await__"):
        content.close()
        raise BadArgument(f"{shown} is read asynchronously: pass await file.read()")
    if isinstance(content, str):
        raise BadArgument(in_text_mode)
    if not _is_bytes(content):
        raise BadArgument(f"{shown} gives {type(content).__name__}, not bytes")
    if not content:
        raise BadArgument(f"{shown} is empty, or was read to its end: seek(0) goes back to its start")
    return bytes(content), name


def _start_of(file: Any, size: int) -> Any:
    """Read up to `size` bytes of an open file, or all of it if it is not a file of io: its `read` may take no size."""
    if isinstance(file, io.RawIOBase):  # whose `read` may return fewer
        buffered = io.BufferedReader(file)
        try:
            return buffered.read(size)
        finally:
            buffered.detach()  # leaves the file open
    return file.read(size) if isinstance(file, io.IOBase) else file.read()


def _shown(name: str) -> str:
    return name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}..."
