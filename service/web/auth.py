"""Authentication and authorization: one decision per request, from its method, path and headers alone."""

import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Request

from service.errors import Forbidden, NotFound, ServiceError, Unauthorized
from service.settings import Key, Scope
from service.web import problems
from service.web.origin import check_origin, check_site
from service.web.prefix import route_path
from service.web.problems import NO_SUCH_PATH

_RANK: dict[Scope, int] = {"predict": 0, "train": 1, "admin": 2}  # each scope includes the lower ones

Headers = Mapping[bytes, bytes]


class Access:
    """Access to a route: the lowest scope that opens it (None: public), and the error statuses that it documents."""

    __slots__ = ("problems", "scope")

    def __init__(self, scope: Scope | None, *problems: int) -> None:
        self.scope = scope
        self.problems = problems


class AccessTable:
    """Finds the access rule of a request in a table of `METHOD /path` -> Access."""

    def __init__(self, rules: Mapping[str, Access]) -> None:
        self._patterns = [
            (method, compile_path(path)[0], access)
            for (method, path), access in ((rule.split(), access) for rule, access in rules.items())
        ]
        self.scope = lru_cache(64)(self._scope)

    def find(self, method: str, path: str) -> Access | None:
        """Return the rule of the route that answers a request, if there is one."""
        found = [access for ruled, pattern, access in self._patterns if ruled == method and pattern.match(path)]
        return found[0] if found else None

    def knows(self, path: str) -> bool:
        """Return whether there is a route with this path, for any method."""
        return any(pattern.match(path) for _, pattern, _ in self._patterns)

    def _scope(self, method: str, path: str) -> Scope | None:
        """Return the lowest scope that opens a request; None for public routes, admin for unknown paths.

        A method that a path does not support gets 405, which needs no higher scope than the path's other methods.
        """
        found = self.find("GET" if method == "HEAD" else method, path)
        if found is not None:
            return found.scope
        scopes = [access.scope for _, pattern, access in self._patterns if pattern.match(path)]
        if None in scopes:
            return None
        lowest: list[Scope] = [scope for scope in _RANK if scope in scopes]
        return lowest[0] if lowest else "admin"


class Keyring:
    """The keys of this service, and the scope that each request needs."""

    def __init__(self, keys: Sequence[Key], access: AccessTable, origins: Collection[str] = ()) -> None:
        """`origins` are those of other sites whose pages may send requests."""
        self._access = access
        self._origins = frozenset(origin.encode() for origin in origins)
        self._keys = [(key.scope, sha256(key.secret.encode()).digest()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def scope(self, authorization: bytes) -> Scope | None:
        """Return the highest scope that an Authorization header opens, or None."""
        kind, _, secret = authorization.partition(b" ")
        given = sha256(secret.strip()).digest()  # equal lengths: comparing takes constant time
        matching = [scope for scope, known in self._keys if hmac.compare_digest(known, given)]
        if not matching or kind.lower() != b"bearer":
            return None
        return max(matching, key=_RANK.__getitem__)

    def name(self, authorization: bytes) -> str:
        """Return a name for the key in an Authorization header: its scope and its position among the keys."""
        given = sha256(authorization.partition(b" ")[2].strip()).digest()
        for position, (scope, known) in enumerate(self._keys, 1):
            if hmac.compare_digest(known, given):
                return f"{scope}-{position}"
        return "anyone"

    def check(self, request: Request, headers: Headers) -> None:
        """Raise the ServiceError that refuses a request: Unauthorized, Forbidden, CrossSite or Misdirected."""
        check_site(request, headers, self._origins)
        if self._keys:
            self._check_key(request, headers)
        elif b"host" in headers or self._access.scope(request["method"], route_path(request)) is not None:
            check_origin(
                request, headers, self._origins
            )  # a browser sends Host; the health checks of HTTP/1.0 need not

    def _check_key(self, request: Request, headers: Headers) -> None:
        path = route_path(request)
        needed = self._access.scope(request["method"], path)
        if needed is None:
            return
        authorization = headers.get(b"authorization", b"")
        best = self.scope(authorization)
        if best is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="torchloop"'}
            sent = "the key that was sent is not valid: " if authorization else ""
            other = ". Pages of other origins need TORCHLOOP_CORS_ORIGINS" if _is_preflight(request, headers) else ""
            raise Unauthorized(f'{sent}send a key of this service: "Authorization: Bearer KEY"{other}', challenge)
        request["torchloop.caller"] = best
        if _RANK[best] < _RANK[needed]:
            if not self._access.knows(path):
                raise NotFound(NO_SUCH_PATH)
            raise Forbidden(f"this needs a key of scope {needed}")


def _is_preflight(request: Request, headers: Headers) -> bool:
    return request["method"] == "OPTIONS" and b"access-control-request-method" in headers


def caller(request: Request) -> str:
    """Return the scope of the caller's key, for the history; "anyone" if the service has no keys."""
    return str(request.get("torchloop.caller", "anyone"))


class Guard:
    """ASGI middleware: passes requests with a valid key, or requests from this machine without keys.

    Browsers on this machine can be made to send requests by pages of other sites (CSRF), but without a key. So if there
    are no keys, Host and Origin must be this service's.
    """

    def __init__(self, app: ASGIApp, keys: Keyring, refused: Callable[[int], None]) -> None:
        self._app = app
        self._keys = keys
        self._refused = refused  # called with the status of each refusal

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 421; 404 for an unknown path, if the key is valid."""
        if scope["type"] != "lifespan":
            headers = dict(scope["headers"])
            try:
                self._keys.check(scope, headers)
            except ServiceError as err:
                if not isinstance(err, NotFound):
                    self._refused(err.status)
                await problems.of(err, route_path(scope))(scope, receive, send)
                return
        await self._app(scope, receive, send)
