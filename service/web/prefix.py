"""The path prefix under which a reverse proxy publishes the service.

It goes into `root_path` of the ASGI scope, and in front of its `path`, as ASGI says. What compares paths uses
`route_path`; what writes addresses of the service puts `root_path` in front.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import is_prefix
from service.web.bodies import header


def route_path(scope: Scope) -> str:
    """Return the path of a request without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Prefix:
    """ASGI middleware: recognizes the prefix of a request.

    It is the setting, whether the proxy removes it from the path or not; or the X-Forwarded-Prefix of a trusted proxy,
    which has removed it.
    """

    def __init__(self, app: ASGIApp, root_path: str, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app = app
        self._root_path = root_path
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its prefix; send a browser that asks for the prefix itself to the page below it."""
        if scope["type"] == "http":
            prefix, path = self._root_path, scope["path"]
            forwarded = header(scope, b"x-forwarded-prefix")
            if forwarded and self._is_trusted(scope) and is_prefix(named := _joined(forwarded)):
                prefix = named
            elif prefix and path == prefix:
                await RedirectResponse(f"{prefix}/", 308)(scope, receive, send)
                return
            elif prefix and path.startswith(f"{prefix}/"):
                path = path[len(prefix) :]
            if prefix:
                scope = {**scope, "root_path": prefix, "path": prefix + path}
        await self._app(scope, receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        try:
            address = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)


def _joined(forwarded: bytes) -> str:
    """Join the prefixes that several proxies have removed, the outermost first."""
    return "".join(part.strip().rstrip("/") for part in forwarded.decode("latin-1").split(","))
