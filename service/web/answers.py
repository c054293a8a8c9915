"""Properties that all answers share: HEAD is answered as GET without a body, and caches store nothing unasked."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_STORE = (b"cache-control", b"no-store")  # answers change with every promotion, and may hold a caller's data
_CACHING = b"cache-control"


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether a client names the ETag in If-None-Match, so that 304 is enough (weak comparison)."""
    known = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return etag in known or "*" in known


class Answers:
    """ASGI middleware: answers HEAD, and adds `Cache-Control: no-store` to answers that say nothing about caching."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def uncached(message: Message) -> None:
            if message["type"] == "http.response.start" and not any(name == _CACHING for name, _ in message["headers"]):
                message["headers"] = [*message["headers"], NO_STORE]
            await send(message)

        if scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _Bodiless(uncached))
        else:
            await self._app(scope, receive, uncached)


class _Bodiless:
    """Sends headers and an empty body, and discards the body. The server then reports a disconnect: a stream ends."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
        elif not self._ended:
            self._ended = True
            await self._send({"type": "http.response.body", "body": b""})
