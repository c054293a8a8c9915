"""Parse multipart forms of files."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from models.errors import InvalidInput, TooManySamples
from service.errors import Malformed
from service.media_types import plain

MAX_FILES = 256  # in one multipart form


class _Form(MultiPartParser):
    """A parser that records the final boundary. Without that, a truncated form looks like a shorter one."""

    ended = False

    def on_end(self) -> None:
        """Record the final boundary."""
        self.ended = True


async def files(headers: Headers, content: bytes) -> list[tuple[str, bytes]]:
    """Return media type and content of each part of a multipart body. File names from the client are ignored.

    Raises Malformed, TooManySamples, or InvalidInput if there is no file.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield content
        if not parser.ended:  # raised inside, so that the parser closes its files
            raise MultiPartException("it ends before its last boundary")

    try:
        async with aclosing(stream()) as pieces:  # breaks the cycle of parser and stream, which holds the body
            parser = _Form(headers, pieces, max_files=MAX_FILES, max_fields=MAX_FILES, max_part_size=len(content))
            parser.spool_max_size = len(content) + 1  # the body is in memory already: nothing goes to a temporary file
            form = await parser.parse()
    except MultiPartException as err:
        if err.message.startswith("Too many"):
            raise TooManySamples(MAX_FILES + 1, MAX_FILES) from err
        raise Malformed(f"the multipart body cannot be read: {err.message}") from err
    try:
        parts = form.multi_items()
        if not parts:
            raise InvalidInput("No file", f"the form holds no file; send 1 to {MAX_FILES} pictures")
        return [(plain(part.content_type), await part.read()) for part in map(_file, (part for _, part in parts))]
    finally:
        await form.close()


def _file(part: UploadFile | str) -> UploadFile:
    if isinstance(part, str):
        raise InvalidInput("No file", "a field of the form is text; send each picture as a file")
    return part
