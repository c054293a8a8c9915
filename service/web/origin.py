"""What a browser on this machine may be made to send by a page from elsewhere, and how it is told apart.

A foreign page can post to a loopback address, which the browser marks with Origin and Sec-Fetch-Site; and a name of its
own can be made to lead to 127.0.0.1 (DNS rebinding), which leaves that name in Host.
"""

from collections.abc import Mapping
from functools import lru_cache

from starlette.types import Scope

from service.errors import CrossSite, Misdirected
from service.settings import is_loopback

_READING = {"GET", "HEAD", "OPTIONS"}


def check_site(request: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Raises CrossSite where a browser says that a page of another site has it change something."""
    if headers.get(b"sec-fetch-site") == b"cross-site" and request["method"] not in _READING:
        raise CrossSite("a page of another site may change nothing here")


def check_origin(request: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Raises Misdirected where Host is no name of this machine, CrossSite where Origin is not the Host.

    For a service without keys, which listens on loopback: a proxy with a name of its own needs keys.
    """
    host = headers.get(b"host", b"")
    if not _is_ours(host):
        raise Misdirected("without API keys this answers to localhost only: ask http://127.0.0.1, or set keys")
    origin = headers.get(b"origin")
    if origin is not None and request["method"] not in _READING and origin.lower().partition(b"://")[2] != host.lower():
        raise CrossSite("a page of another origin may change nothing here")


@lru_cache(256)
def _is_ours(host: bytes) -> bool:
    """Whether a Host header, its port left out, is localhost or an address of this machine alone."""
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return is_loopback(name)
