"""Refuse requests while the application is not started, i.e. outside its lifespan, and say how to start it in tests.

httpx.ASGITransport and starlette's TestClient without `with` send requests without running the lifespan. No model is
loaded then, and no recipe is read.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from service.web import problems

_DETAIL = (
    "the application is not started: its lifespan was not entered, or has ended. In tests write "
    "`with TestClient(app)`, or `async with app.router.lifespan_context(app)` around httpx.ASGITransport(app)"
)


class Running:
    """Whether the application is within its lifespan."""

    def __init__(self) -> None:
        self.now = False

    @asynccontextmanager
    async def marked(self) -> AsyncIterator[None]:
        """Mark the application as running while entered."""
        self.now = True
        try:
            yield
        finally:
            self.now = False


class Started:
    """ASGI middleware: answers 503 to every request while the application is not running."""

    def __init__(self, app: ASGIApp, running: Running) -> None:
        self._app = app
        self._running = running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if self._running.now or scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await problems.problem(503, "Not started", _DETAIL, path=scope["path"])(scope, receive, send)
