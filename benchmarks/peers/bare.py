"""Minimal ASGI application: read the body, respond with 200 bytes. The lower bound of serving with uvicorn."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

CONTENT = b'{"label": 7, "rest": "' + b"x" * 176 + b'"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(CONTENT))]

Message = MutableMapping[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """ASGI application without routes."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": CONTENT})
