"""Who may do what: one key a caller, one decision a request, taken before anything else is read."""

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Request

from service.config import Key, Scope
from service.errors import Forbidden, ServiceError, Unauthorized
from service.problems import of_service_error

PUBLIC = {"/", "/health/live", "/health/ready"}
_RANK: dict[Scope, int] = {"predict": 0, "train": 1, "admin": 2}  # each opens what those below it open


def needed_scope(method: str, path: str) -> Scope | None:
    """The least scope that opens a request; None for public ones. What is not named here takes admin."""
    if path in PUBLIC or path.startswith("/page/"):  # the page's own files: they hold no data
        return None
    if method in {"GET", "HEAD", "OPTIONS"} or path.startswith(("/predict/", "/explain/", "/preview/")):
        return "predict"
    if path == "/train" or (path.startswith("/jobs/") and path.endswith("/cancel")):
        return "train"
    return "admin"


def caller(request: Request) -> str:
    """Who asks, for the history: the scope of the key, or "anyone" where there are no keys."""
    return str(request.get("torchloop.caller", "anyone"))


class KeyGuard:
    """ASGI middleware: `Authorization: Bearer KEY`. Without keys everything is open (see Settings)."""

    def __init__(self, app: ASGIApp, keys: Sequence[Key]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401 or 403."""
        if scope["type"] == "http" and self._keys:
            try:
                self._check(scope)
            except ServiceError as err:
                await of_service_error(err)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        needed = needed_scope(request["method"], request["path"])
        if needed is None:
            return
        given = next((value for name, value in request["headers"] if name == b"authorization"), b"")
        kind, _, secret = given.partition(b" ")
        matching = [key for key in self._keys if hmac.compare_digest(key.secret.encode(), secret.strip())]
        if kind.lower() != b"bearer" or not matching:
            challenge = {"WWW-Authenticate": 'Bearer realm="torchloop"'}
            raise Unauthorized('send a key of this service: "Authorization: Bearer KEY"', challenge)
        best = max(matching, key=lambda key: _RANK[key.scope])
        request["torchloop.caller"] = best.scope
        if _RANK[best.scope] < _RANK[needed]:
            raise Forbidden(f"this takes a key of scope {needed}")
