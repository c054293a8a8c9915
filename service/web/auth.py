"""Who may do what: one decision a request, taken before anything else of it is read."""

import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Request

from service.api.access import RULES
from service.errors import Forbidden, ServiceError, Unauthorized
from service.settings import Key, Scope
from service.web.origin import check_origin, check_site
from service.web.problems import of_service_error

_RANK: dict[Scope, int] = {"predict": 0, "train": 1, "admin": 2}  # each opens what those before it open
_PATTERNS = [
    (method, compile_path(path)[0], scope) for (method, path), scope in ((r.split(), s) for r, s in RULES.items())
]

Headers = Mapping[bytes, bytes]


@lru_cache(64)
def needed_scope(method: str, path: str) -> Scope | None:
    """The least scope that opens a request; None for public ones. What RULES do not name takes admin.

    A method that an address does not take is answered with 405: that takes no more than the address itself.
    """
    method = "GET" if method == "HEAD" else method
    named = [(ruled, scope) for ruled, pattern, scope in _PATTERNS if pattern.match(path)]
    for ruled, scope in named:
        if ruled == method:
            return scope
    if any(scope is None for _, scope in named):
        return None
    least: list[Scope] = [scope for scope in _RANK if any(scope == of_another for _, of_another in named)]
    return least[0] if least else "admin"


class Keyring:
    """The keys of this service, to look one up in."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = [(key.scope, sha256(key.secret.encode()).digest()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def scope(self, authorization: bytes) -> Scope | None:
        """The best scope that an Authorization header opens, if it opens any."""
        kind, _, secret = authorization.partition(b" ")
        given = sha256(secret.strip()).digest()  # digests are of one length: the time to compare them tells nothing
        matching = [scope for scope, known in self._keys if hmac.compare_digest(known, given)]
        if not matching or kind.lower() != b"bearer":
            return None
        return max(matching, key=_RANK.__getitem__)

    def check(self, request: Request, headers: Headers) -> None:
        """Raises the ServiceError with which a request is refused, by its method, path and headers."""
        check_site(request, headers)
        if self._keys:
            self._check_key(request, headers)
        else:
            check_origin(request, headers)

    def _check_key(self, request: Request, headers: Headers) -> None:
        needed = needed_scope(request["method"], request["path"])
        if needed is None:
            return
        best = self.scope(headers.get(b"authorization", b""))
        if best is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="torchloop"'}
            raise Unauthorized('send a key of this service: "Authorization: Bearer KEY"', challenge)
        request["torchloop.caller"] = best
        if _RANK[best] < _RANK[needed]:
            raise Forbidden(f"this takes a key of scope {needed}")


def caller(request: Request) -> str:
    """Who asks, for the history: the scope of the key, or "anyone" if the service has no keys."""
    return str(request.get("torchloop.caller", "anyone"))


class Guard:
    """ASGI middleware: lets in who has a key, or, where there are no keys, who is on this machine (see Settings).

    Each takes one look at the headers. Browsers add no key to what a foreign page has them send, but they are on this
    machine: so without keys Host and Origin must say that the page is ours.
    """

    def __init__(self, app: ASGIApp, keys: Keyring) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401, 403 or 421."""
        if scope["type"] != "lifespan":
            headers = dict(scope["headers"])
            try:
                self._keys.check(scope, headers)
            except ServiceError as err:
                await of_service_error(err, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
