"""Read request bodies within a size limit."""

from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from service.errors import TooLarge
from service.web.compression import coding_of

PIECE_BYTES = 1_048_576  # of a body that is not kept in memory


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read a whole body and count its bytes as they arrive; a Content-Length is only used to refuse early.

    Raises TooLarge, and ClientDisconnect if the client has disconnected.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit, "send it in parts")
    message = await receive()
    body: bytes | bytearray = message.get("body", b"")  # usually the whole body
    while message.get("more_body", False):
        if isinstance(body, bytes):
            body = bytearray(body)
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            break
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > limit:
        raise _too_large(limit, "send it in parts")
    return bytes(body)


async def pieces(scope: Scope, receive: Receive, limit: int, way_out: str) -> AsyncGenerator[bytes, None]:
    """Yield a body as it arrives, in pieces of about PIECE_BYTES, and count it as `read_body` does.

    Raises TooLarge, with the way out, and ClientDisconnect if the client disconnects before the end.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit, way_out)
    total, waiting, more = 0, bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        waiting += message.get("body", b"")
        if total + len(waiting) > limit:
            raise _too_large(limit, way_out)
        if len(waiting) >= PIECE_BYTES or (waiting and not more):
            total += len(waiting)
            yield bytes(waiting)
            waiting.clear()


def _too_large(limit: int, way_out: str) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes: {way_out}")


def content_coding(scope: Scope) -> str | None:
    """Return the coding that the body is compressed with; None for none. Raises UnsupportedMediaType."""
    named = b",".join(value for key, value in scope["headers"] if key == b"content-encoding")
    return coding_of(named.decode("latin-1")) if named else None


def header(scope: Scope, name: bytes) -> bytes:
    """Return the first header of that lower-case name, or an empty value."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""
