"""Address of the service: its URL, key and proxy, checked before anything is sent, and why it does not answer."""

import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from service.client.errors import BadArgument, NotTorchloop, Refused, Unreachable, first_line, refusal

H = TypeVar("H", httpx.Client, httpx.AsyncClient)
CONNECT_S = 5.0
_OF_THE_SERVICE = {"docs", "explain", "health", "jobs", "metrics", "models", "openapi.json", "predict", "train", "v2"}


# The first that applies to an error or one of its causes.
_WAYS_OUT: Sequence[tuple[type[BaseException], str]] = (
    (httpx.ConnectTimeout, "check the address and port, and whether a firewall drops connections"),
    (
        httpx.TimeoutException,
        "the service is busy, or the call takes longer: give it more time (timeout_s=..., or --timeout)",
    ),
    (
        ssl.SSLCertVerificationError,
        "its certificate is not trusted: name the file of its certificate authority in SSL_CERT_FILE",
    ),
    (ssl.SSLError, "TLS failed: if the service has no TLS, write http://{netloc}"),
    (socket.gaierror, "check the host name in the URL (--url or TORCHLOOP_URL)"),
    (httpx.RemoteProtocolError, "check the port and the scheme: a server with TLS needs https://"),
)


class BadURL(BadArgument):
    """A URL, key, timeout or proxy setting that cannot be used."""


@dataclass(frozen=True, slots=True)
class Service:
    """The address of a service. Texts contain neither its key nor the user information of a URL."""

    url: httpx.URL
    shown: str
    proxy: str | None  # URL of the proxy, with its password
    proxy_source: str  # environment variable

    def refusal(self, response: httpx.Response) -> Refused:
        """Return the error for a response with an error status."""
        way_out = f"the answer is not Torchloop's: check {self.shown}{self._through()}"
        error = refusal(response, way_out)
        inside = _OF_THE_SERVICE & set(self.url.path.split("/"))
        if response.status_code != 404 or not inside:
            return error
        root = str(self.url.copy_with(path="/", userinfo=b"")).rstrip("/")
        return type(error)(404, error.title, f"{error.detail}; the URL {self.shown} has a path: try {root}")

    def not_torchloop(self, response: httpx.Response) -> NotTorchloop:
        """Return the error for a response that is not one of the service."""
        if response.has_redirect_location:
            return NotTorchloop(
                f"{self.shown} redirects to {_target(response)}: name the service's own URL, without a login page or "
                "another address before it",
            )
        kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
        return NotTorchloop(
            f"the server at {self.shown} is not Torchloop (status {response.status_code}, {kind}): check the URL"
            f"{self._through()}"
        )

    def unreachable(self, err: httpx.RequestError) -> Unreachable:
        """Return the error for a request that got no response."""
        return Unreachable(self.shown, first_line(err), self._way_out(err))

    def _through(self) -> str:
        host = self.url.host
        return f", and the proxy that {self.proxy_source} names; NO_PROXY={host} bypasses it" if self.proxy else ""

    def _way_out(self, err: httpx.RequestError) -> str:
        if self.proxy and not isinstance(err, httpx.ReadTimeout):
            return f"check the URL{self._through()}"
        causes = tuple(_causes(err))
        found = (text for kind, text in _WAYS_OUT if any(isinstance(cause, kind) for cause in causes))
        return next(found, "").format(netloc=self.url.netloc.decode())


def address(url: Any, *, proxies: bool = True) -> Service:
    """Check a URL and find its proxy. Raises BadURL."""
    if not isinstance(url, str | httpx.URL):
        raise BadURL(f"the URL must be text such as http://127.0.0.1:8000, not {type(url).__name__}")
    text = str(url).strip() if isinstance(url, httpx.URL) else url.strip()
    if "://" not in text:
        raise BadURL(f"{text!r} is not a URL: write it with its scheme, such as http://{text or '127.0.0.1:8000'}")
    try:
        found = httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as err:
        raise BadURL(f"{_without_user(text)} is not a URL ({first_line(err)}): check --url or TORCHLOOP_URL") from None
    if "%" in found.host or (found.port or 0) > 65_535:
        raise BadURL(f"{_without_user(text)} is not a URL (host or port): check --url or TORCHLOOP_URL")
    shown = str(found.copy_with(userinfo=b"")).rstrip("/")
    if found.scheme not in {"http", "https"} or not found.host:
        raise BadURL(f"{shown!r} is not a URL of a service: it must begin with http://HOST or https://HOST")
    if found.query or found.fragment:
        raise BadURL(f"{shown} has a query or fragment: name the service's own URL, such as http://{found.host}")
    source, proxy = _proxy(found) if proxies else ("", None)
    return Service(found, shown, proxy, source)


def opened(kind: Callable[..., H], service: Service, key: Any, timeout_s: Any, transport: Any) -> H:
    """Create a client of httpx for a service. Raises BadURL."""
    headers = {"Authorization": b"Bearer " + _secret(key)} if _is_given(key) else {}
    if headers and service.url.userinfo:
        raise BadURL(f"both a key and a user name in the URL are given for {service.shown}: leave one out")
    options: dict[str, Any] = {"base_url": service.url, "headers": headers, "timeout": timeout(timeout_s)}
    if transport is not None:
        return kind(**options, transport=transport, trust_env=False)
    try:  # trust_env would use the proxies of the environment for loopback addresses as well
        return kind(**options, trust_env=False, verify=httpx.create_ssl_context(), proxy=service.proxy)
    except ImportError as err:
        raise BadURL(
            f"{service.proxy_source} names a SOCKS proxy, which needs the package socksio: pip install 'httpx[socks]', "
            f"or set NO_PROXY={service.url.host} if {service.shown} needs no proxy",
        ) from err
    except (httpx.InvalidURL, ValueError):  # without the cause: the URL of a proxy may have a password
        name = service.proxy_source or "the environment"
        raise BadURL(f"the proxy in {name} is not http://HOST:PORT or socks5://HOST:PORT: correct it") from None
    except OSError as err:  # ssl.SSLError too
        raise BadURL(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used ({first_line(err)}): correct or unset it") from err


def timeout(seconds: Any) -> httpx.Timeout:
    """Return the timeouts of a call. None: no limit but for connecting. Raises BadURL."""
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e6
    ):
        raise BadURL(f"timeout_s must be a number of seconds above 0, not {_number(seconds)}")
    return httpx.Timeout(seconds, connect=CONNECT_S)


def _number(value: Any) -> str:
    shown = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e18)
    return repr(value) if shown else f"of type {type(value).__name__}"


def header(name: str, text: Any) -> bytes:
    """Return a header's value without white space around it. Raises BadArgument, without the value, if it is none."""
    if not isinstance(text, str | bytes):
        raise BadArgument(f"{name} must be text, not {type(text).__name__}")
    try:  # other bytes than UTF-8 come from an environment that was read as another encoding
        value = text.strip().encode("utf-8", "surrogateescape") if isinstance(text, str) else text.strip()
    except UnicodeEncodeError:
        raise BadArgument(f"{name} has characters that are not valid Unicode") from None
    if not value:
        raise BadArgument(f"{name} is empty")
    if any(byte < 32 or byte == 127 for byte in value):
        raise BadArgument(f"{name} has a line break or another control character inside: write it in one line")
    return value


def _is_given(key: Any) -> bool:
    return key is not None and not (isinstance(key, str | bytes) and not key)


def _secret(key: Any) -> bytes:
    try:
        return header("the key (key=..., --key or TORCHLOOP_KEY)", key)
    except BadArgument as err:
        raise BadURL(str(err)) from None


def _proxy(url: httpx.URL) -> tuple[str, str | None]:
    """Return the proxy for a URL, as curl chooses it, and the variable that names it. None for loopback addresses."""
    names = [f"{url.scheme}_proxy", f"{url.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    known = getproxies()
    proxy = known.get(url.scheme) or known.get("all")
    if not proxy or _is_loopback(url.host) or _bypassed(url, known.get("no", "")):
        return "", None
    source = next((name for name in names if os.environ.get(name)), "the system's settings")
    return source, proxy if "://" in proxy else f"http://{proxy}"


def _bypassed(url: httpx.URL, no_proxy: str) -> bool:
    if proxy_bypass(url.netloc.decode()) or proxy_bypass(url.host):
        return True
    try:
        own = ip_address(url.host)
    except ValueError:
        return False
    return any(own in network for network in _networks(no_proxy))


def _networks(no_proxy: str) -> Iterator[Any]:
    for entry in no_proxy.split(","):
        try:
            yield ip_network(entry.strip(), strict=False)
        except ValueError:
            continue


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _causes(err: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = err
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _target(response: httpx.Response) -> str:
    """Return where a response redirects to, without the query, which may have a token."""
    if response.next_request is None:
        return "another address"
    return str(response.next_request.url.copy_with(query=None, fragment=None, userinfo=b""))


def _without_user(text: str) -> str:
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
