"""CSRF and DNS-rebinding checks based on Host, Origin and Sec-Fetch-Site.

A page of another site can make a browser post to a loopback address (CSRF); the browser marks such requests with Origin
and Sec-Fetch-Site. It can also point a name of its domain to 127.0.0.1 (DNS rebinding); that name is in Host.
"""

from collections.abc import Mapping, Set
from functools import lru_cache

from starlette.types import Scope

from service.errors import CrossSite, Misdirected
from service.settings import ANY, is_loopback

_EVERY = ANY.encode()
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


def check_site(request: Scope, headers: Mapping[bytes, bytes], origins: Set[bytes]) -> None:
    """Raise CrossSite if a browser marks a request that changes something as cross-site; not if its origin is known."""
    if (
        headers.get(b"sec-fetch-site") == b"cross-site"
        and request["method"] not in _SAFE_METHODS
        and not _is_known(headers.get(b"origin"), origins)
    ):
        raise CrossSite(
            "pages of other sites may not change anything here; TORCHLOOP_CORS_ORIGINS allows their origins"
        )


def check_origin(request: Scope, headers: Mapping[bytes, bytes], origins: Set[bytes]) -> None:
    """Raise Misdirected if Host is not a loopback name, CrossSite if a request with another Origin changes something.

    `origins` are allowed in addition to the service's own.

    For a service without keys, which listens on loopback only. A proxy with another host name needs keys.
    """
    host = headers.get(b"host", b"")
    if not _is_loopback_host(host):
        raise Misdirected(
            "without API keys only localhost is served: use http://127.0.0.1, or set keys; in tests, "
            'base_url="http://localhost"'
        )
    origin = headers.get(b"origin")
    if (
        origin is not None
        and request["method"] not in _SAFE_METHODS
        and origin.lower().partition(b"://")[2] != host.lower()
        and not _is_known(origin, origins)
    ):
        raise CrossSite("pages of other origins may not change anything here; TORCHLOOP_CORS_ORIGINS allows them")


def _is_known(origin: bytes | None, origins: Set[bytes]) -> bool:
    return bool(origins) and origin is not None and (origin.lower() in origins or _EVERY in origins)


@lru_cache(256)
def _is_loopback_host(host: bytes) -> bool:
    """Return whether a Host header without its port is localhost or a loopback address."""
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return is_loopback(name)
