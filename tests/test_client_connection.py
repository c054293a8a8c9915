"""URLs, keys, proxies and failing connections: each ends in a TorchloopError that names the way out."""

import asyncio
import contextlib
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from service.client import AsyncClient, BadArgument, Client, NotTorchloop, Refused, TorchloopError, Unreachable
from tests.client_calls import GOOD, answering, calls_of

PROXIES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def http_server(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """A server on a free port that answers every request with `content`, and the targets it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def talking(say: bytes) -> Iterator[int]:
    """A server of another protocol: it says something to each connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(say)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not a URL"), ("localhost:8000", "such as http://localhost:8000"), ("127.0.0.1", "http://127.0.0.1"),
        ("host:8000/x", "http://host:8000/x"), ("ftp://host", "begin with http://HOST"), ("http://", "begin with"),
        ("http:///predict", "begin with"), ("http://host:port", "not a URL"), ("http://host:99999", "not a URL"),
        ("http://[::1", "not a URL"), ("http://a b", "not a URL"), ("http://host\0", "not a URL"), (None, "NoneType"),
        (b"http://host", "bytes"), (8000, "int"), ("http://host?x=1", "query"), ("http://host#page", "fragment"),
        ("http://\ud800", "not a URL"), ("http://" + "x" * 70_000, "not a URL"),
        ("http://user:pw@host:port", "not a URL"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_one_is_refused_at_once(url: Any, says: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(BadArgument, match=says) as refused:
            kind(url)
        assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://host/", " http://host\n", "HTTP://HOST", "http://host//", httpx.URL("http://host")]
)
def test_a_url_may_end_in_a_slash_or_white_space(url: Any) -> None:
    assert answering(GOOD, url).models() == []


@pytest.mark.parametrize("prefix", ["/torchloop", "/a/b/"])
def test_a_url_may_have_a_prefix(prefix: str) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return GOOD

    Client(f"http://host{prefix}", transport=httpx.MockTransport(handle)).models()
    assert seen == [f"{prefix.rstrip('/')}/models"]


@pytest.mark.parametrize("path", ["/predict/mnist", "/docs", "/v2", "/models/"])
def test_a_url_of_a_route_is_named_with_the_one_to_try(path: str) -> None:
    with pytest.raises(Refused, match=r"try http://host:1$"):
        answering(httpx.Response(404), f"http://host:1{path}").models()


DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]  # its repr fails
NAMES: list[Any] = [pytest.param(DEEP, id="deep"), None, b"x", 1.5, True, "..", ".", "", "\ud800", [], {}]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_would_change_the_path_are_refused(name: Any) -> None:
    client = answering(GOOD)
    for call in (client.model, client.versions, client.rollback, client.job, client.cancel, client.promotions):
        with pytest.raises(BadArgument):
            call(name)


@pytest.mark.parametrize("name", ["a/b", "a?version=2", "a#b", "a%2fb", "ä", "a b", "a\nb", "../x", 5])
def test_other_names_are_one_segment_of_the_path(name: Any) -> None:
    seen: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"name": "x"})

    Client("http://host", transport=httpx.MockTransport(handle)).model(name)
    assert seen[0].startswith(b"/models/")
    assert not set(seen[0][8:]) & set(b"/?#\n ")


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("secret", b"secret"), ("secret\n", b"secret"), (" secret\r\n", b"secret"), ("schlüssel", "schlüssel".encode()),
        ("\udcc3\udca4", "ä".encode()), (b"secret\n", b"secret"), ("鍵", "鍵".encode()), ("two words", b"two words"),
    ],
)  # fmt: skip
def test_a_key_is_sent_in_utf_8_without_white_space_around_it(key: Any, sent: bytes) -> None:
    seen: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.headers.raw)[b"Authorization"])
        return GOOD

    Client("http://host", key=key, transport=httpx.MockTransport(handle)).models()
    assert seen == [b"Bearer " + sent]


@pytest.mark.parametrize(
    "key",
    [
        "sec\nret",
        "sec\r\nret: x",
        "sec\0ret",
        "sec\x7fret",
        "secret\ud800",
        b"sec\nret",
        5252,
        ["secret"],
        np.array([]),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_and_never_shown(key: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(BadArgument, match="the key") as refused:
            kind("http://host", key=key)
        shown = "".join(traceback.format_exception(refused.value))
        assert "secret" not in shown.replace('"secret', "").replace("_secret", "").replace("secret(", "")
        assert "5252" not in shown
        assert refused.value.__cause__ is None


@pytest.mark.parametrize("key", ["\n", "  "])
def test_an_empty_key_is_refused(key: str) -> None:
    with pytest.raises(BadArgument, match="is empty"):
        Client("http://host", key=key)


def test_a_user_name_in_the_url_is_not_shown_and_does_not_replace_the_key() -> None:
    with pytest.raises(BadArgument, match="leave one out"):
        Client("http://user:password@host", key="k")
    client = answering(httpx.ConnectError("refused"), "http://user:password@host")
    with pytest.raises(Unreachable) as refused:
        client.models()
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), "30", True, []])
def test_a_timeout_that_cannot_be_one_is_refused(timeout_s: Any) -> None:
    with pytest.raises(BadArgument, match="timeout_s must be a number"):
        Client(timeout_s=timeout_s)


@pytest.mark.many
@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "127.0.0.1:9", "odd://x", "http://x:y"]
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
def test_proxies_of_the_environment_are_not_used_for_loopback_addresses(
    proxy: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    with http_server(b'{"models": []}') as (port, asked):
        for host in ("127.0.0.1", "localhost", "127.1.2.3", "[::ffff:127.0.0.1]"):
            with contextlib.suppress(Unreachable), Client(f"http://{host}:{port}") as client:
                assert client.models() == []
    assert "/models" in asked


@pytest.mark.parametrize("no_proxy", ["example.invalid", ".invalid", "*", "a, example.invalid"])
def test_no_proxy_is_heeded_also_if_the_proxy_could_not_be_used(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with Client("http://example.invalid"):
        pass


@pytest.mark.parametrize("no_proxy", ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32,192.0.0.0/8"])
def test_no_proxy_may_name_networks(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with Client("http://192.0.2.7:8000"):
        pass


def test_a_proxy_is_used_for_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(b'{"models": []}') as (port, asked):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        with Client("http://example.invalid") as client:
            assert client.models() == []
    assert asked == ["http://example.invalid/models"]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"])
def test_a_failing_proxy_is_named_by_its_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv(variable, f"http://user:password@127.0.0.1:{port}")
    with Client("http://example.invalid", retries=0) as client, pytest.raises(Unreachable) as failed:
        client.models()
    assert f"{variable} names; NO_PROXY=example.invalid bypasses it" in str(failed.value)
    assert "password" not in str(failed.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("proxy", "says"), [("socks5://user:password@x:1", "socksio"), ("socks5h://x", "socksio"), ("odd://password", "http://HOST:PORT"),
                        ("http://password:x", "http://HOST:PORT")],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_one_line(
    variable: str, proxy: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    for kind in (Client, AsyncClient):
        with pytest.raises(BadArgument, match=says) as refused:
            kind("http://example.invalid")
        assert variable in str(refused.value)
        assert "password" not in str(refused.value)


def test_a_page_of_a_proxy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(b"<html>") as (port, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        with Client("http://example.invalid") as client, pytest.raises(NotTorchloop, match="HTTP_PROXY"):
            client.models()


def caused(kind: type[httpx.RequestError], cause: Exception) -> httpx.RequestError:
    err = kind(str(cause))
    err.__cause__ = cause
    return err


@pytest.mark.parametrize(
    ("err", "says"),
    [
        (httpx.ConnectError("refused"), "start the service"),
        (httpx.ConnectTimeout("timed out"), "firewall"),
        (httpx.ReadTimeout("timed out"), "timeout_s"),
        (httpx.WriteTimeout(""), "timeout_s"),
        (httpx.PoolTimeout(""), r"\(PoolTimeout\).*timeout_s"),
        (caused(httpx.ConnectError, ssl.SSLCertVerificationError("self-signed")), "SSL_CERT_FILE"),
        (caused(httpx.ConnectError, ssl.SSLError("wrong version")), "write http://host"),
        (caused(httpx.ConnectError, socket.gaierror(-2, "unknown")), "host name"),
        (httpx.RemoteProtocolError("no response"), "https://"),
        (httpx.ReadError("reset"), "reset"),
        (httpx.DecodingError("odd gzip"), "odd gzip"),
    ],
)
def test_a_failure_names_the_way_out(err: httpx.RequestError, says: str) -> None:
    with pytest.raises(Unreachable, match=says):
        answering(err).models()


def test_a_server_of_another_protocol_is_one_line() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
    for say in (b"", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\0\x02\x02\x0a", head):
        for scheme in ("http", "https"):
            with talking(say) as port:
                client = Client(f"{scheme}://127.0.0.1:{port}", retries=0)
                with pytest.raises(Unreachable, match=f"{scheme}://127.0.0.1:{port}"):
                    client.models()
                client.close()


def test_a_closed_client_says_so() -> None:
    client = answering(GOOD)
    client.close()
    for call in calls_of(client):
        with pytest.raises(TorchloopError, match="the client is closed"):
            call()

    async def use() -> None:
        later = AsyncClient("http://host")
        await later.close()
        await later.models()

    with pytest.raises(TorchloopError, match="the client is closed"):
        asyncio.run(use())


@pytest.mark.parametrize("retries", [-1, 0])
def test_retries_below_one_are_none(retries: int) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ReadError("broken")

    with pytest.raises(Unreachable):
        Client("http://host", transport=httpx.MockTransport(handle), retries=retries).models()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"config": {"lr": float("nan")}}, "'lr'"), ({"config": {"lr": 1j}}, "'lr'"),
        ({"config": 5}, "config must be a dict"),
        ({"config": "epochs"}, "config must be a dict"), ({"idempotency_key": "a\nb"}, "line break"),
        ({"idempotency_key": ""}, "empty"), ({"idempotency_key": 5}, "must be text"), ({"promote": object()}, "order"),
    ],
)  # fmt: skip
def test_an_order_that_json_cannot_carry_is_refused(arguments: Any, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        answering(GOOD).submit("m", **arguments)
