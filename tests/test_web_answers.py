"""Properties of all answers, over sockets: HEAD for every GET, caching, health checks of HTTP/1.0, framing."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from service.app import create_app
from service.settings import Settings
from service.web.answers import is_known
from tests.fakes import LINE, InProcess, save_line
from tests.rules import RULES
from tests.serving import line_recipes
from tests.sockets import Address, Connection, listening
from tests.templates import migrated

PATHS = sorted(rule.split()[1] for rule in RULES if rule.startswith("GET "))
BODY = b'{"inputs": [[3]]}'
PREDICT = b"POST /predict/line HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(BODY)
VALUES = {
    "model": "line",
    "version": "1",
    "row": "1",
    "index": "1",
    "prediction": "0199d2c4f1a-5f3a9c1d-2b-4",
    "digest": "0" * 64,
}
VARY = {"date", "last-modified", "server-timing"}


def served(folder: Any, **settings: Any) -> Any:
    save_line(folder)
    specs = {"line": LINE}
    given = Settings(store=migrated(folder / "store"), backend="eager", **settings)
    return create_app(given, specs, folder, line_recipes, partial(InProcess, specs))


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with listening(served(tmp_path_factory.mktemp("open"))) as (found, _):
        yield found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with listening(served(tmp_path_factory.mktemp("locked"), api_keys="predict:reads,admin:all")) as (found, _):
        yield found


@pytest.fixture(scope="module")
def job(where: Address) -> str:
    """A job that waits for a worker."""
    body = b'{"model": "line"}'
    with Connection(where) as caller:
        caller.send(
            b"POST /train HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        return str(json.loads(caller.answer()[1])["id"])


def asked(where: Address, method: str, path: str, more: str = "Host: localhost\r\n", version: str = "1.1") -> Any:
    """Status, headers and body, and the status of a second request on the same connection."""
    with Connection(where) as caller:
        caller.send(f"{method} {path} HTTP/{version}\r\n{more}\r\n".encode())
        status, body = caller.answer(bodiless=method == "HEAD")
        headers = {name: value for name, value in caller.headers.items() if name not in VARY}
        if version == "1.1" and "connection" not in headers:
            caller.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert caller.answer()[0] == 200, "the answer to HEAD had a body"
        assert caller.read.read() == b""
    return status, headers, body


@pytest.mark.many
@pytest.mark.parametrize("path", [path for path in PATHS if not path.endswith("/events")])
def test_head_is_answered_like_get_without_a_body(where: Address, job: str, path: str) -> None:
    name = "none" if "/datasets/" in path else "main.js"
    path = path.replace("{path:path}", "swagger-ui.css")
    values = {**VALUES, "job_id": job, "name": name}
    path = re.sub(r"{(\w+)}", lambda found: values.get(found[1], "none"), path)
    status, headers, body = asked(where, "GET", path)
    head = asked(where, "HEAD", path)
    assert (head[0], head[2]) == (status, b"")
    if path != "/metrics":
        assert head[1] == headers
        assert int(headers["content-length"]) == len(body) > 0
    assert head[1].keys() == headers.keys()
    missing = path.endswith((".png", "/original", "/trial")) or "/none" in path or "/predictions/" in path
    assert status == (404 if missing else 409 if path.endswith("/drift") else 200)


def test_head_of_a_stream_of_events_ends_at_once(where: Address, job: str) -> None:
    status, headers, _ = asked(where, "HEAD", f"/jobs/{job}/events")
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("path", ["/predict/line", "/train", "/nothing", "/v2/models/line/infer"])
def test_head_of_a_path_without_get_is_an_error_without_a_body(where: Address, path: str) -> None:
    status, headers, body = asked(where, "HEAD", path)
    assert (status, body) == (404 if path == "/nothing" else 405, b"")
    assert headers.get("allow") == (None if status == 404 else "POST")


def test_allow_of_405_lists_head_with_get(where: Address) -> None:
    status, headers, body = asked(where, "PUT", "/models")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert json.loads(body)["detail"].endswith("only GET, HEAD")


HEALTH = ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/"]


@pytest.mark.many
@pytest.mark.parametrize(
    ("method", "path"),
    [*(("GET", path) for path in HEALTH), *(("HEAD", path) for path in HEALTH), ("OPTIONS", "/")],
)
def test_a_load_balancer_may_check_health_with_http_1_0_and_without_host(
    where: Address, locked: Address, method: str, path: str
) -> None:
    """OPTIONS / is the default health check of HAProxy."""
    for address in (where, locked):
        status, headers, _ = asked(address, method, path, "", "1.0")
        assert status == (204 if method == "OPTIONS" else 200)
        assert headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/models", "/metrics", "/docs"])
def test_without_host_nothing_else_is_answered(where: Address, path: str) -> None:
    assert asked(where, "GET", path, "", "1.0")[0] == 421
    assert asked(where, "GET", "/health/live", "Host: elsewhere.example\r\n", "1.0")[0] == 421


@pytest.mark.parametrize(
    ("method", "path", "caching"),
    [
        ("GET", "/models", "no-store"),
        ("GET", "/models/line/versions", "no-store"),
        ("GET", "/jobs", "no-store"),
        ("GET", "/health/ready", "no-store"),
        ("GET", "/v2/models/line", "no-store"),
        ("GET", "/openapi.json", "no-store"),
        ("GET", "/nothing", "no-store"),
        ("POST", "/models", "no-store"),
        ("POST", "/predict/nothing", "no-store"),
        ("GET", "/", "no-cache"),
        ("GET", "/page/main.js", "no-cache"),
        ("GET", "/models/line/versions/1/checkpoint", "private, no-cache"),
    ],
)
def test_answers_of_the_api_are_not_stored(where: Address, method: str, path: str, caching: str) -> None:
    assert asked(where, method, path)[1]["cache-control"] == caching


@pytest.mark.parametrize("query", [b"", b"?version=1"])
def test_predictions_are_not_stored_on_either_path(where: Address, query: bytes) -> None:
    with Connection(where) as caller:
        caller.send(PREDICT.replace(b"/line", b"/line" + query) + b"Host: localhost\r\n\r\n" + BODY)
        assert caller.answer()[0] == 200
        assert caller.headers["cache-control"] == "no-store"
        caller.send(PREDICT.replace(b"/line", b"/line" + query) + b"Host: localhost\r\n\r\n" + b"?" * len(BODY))
        assert caller.answer()[0] == 400
        assert caller.headers["cache-control"] == "no-store"


HOSTS = [b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nX: y\r\nhOST: elsewhere\r\n"]


@pytest.mark.parametrize("more", [b"", b"Authorization: Bearer all\r\n"])
@pytest.mark.parametrize("hosts", HOSTS, ids=["none", "two", "another"])
def test_a_request_of_http_1_1_has_one_host(where: Address, locked: Address, hosts: bytes, more: bytes) -> None:
    for address in (where, locked):
        for request in (PREDICT, PREDICT.replace(b"/line", b"/line?version=1"), b"GET /health/live HTTP/1.1\r\n"):
            with Connection(address) as caller:
                caller.send(request + hosts + more + b"\r\n" + (BODY if b"POST" in request else b""))
                status, body = caller.answer()
                assert status == 400
                assert "one Host header" in json.loads(body)["detail"]
                assert caller.read.read() == b""


CODINGS = [
    "gzip, chunked",
    "gzip,chunked",
    "deflate, gzip, chunked",
    "identity, chunked",
    "x, Chunked",
    "chunked, chunked",
]


@pytest.mark.parametrize("path", [b"/predict/line", b"/train", b"/health/live", b"/v2/models/line/infer"])
@pytest.mark.parametrize("coding", [*CODINGS, "gzip\r\nTransfer-Encoding: chunked"])
def test_a_transfer_coding_other_than_chunked_is_refused(where: Address, coding: str, path: bytes) -> None:
    with Connection(where) as caller:
        caller.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: %b\r\n\r\n" % (path, coding.encode())
            + b"5\r\nchunk\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        assert caller.answer()[0] in {400, 501}
        assert caller.headers["connection"] == "close"
        assert caller.read.read() == b""


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " chunked "])
def test_chunks_alone_are_read(where: Address, coding: str) -> None:
    with Connection(where) as caller:
        caller.send(
            b"POST /predict/line HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"TE: gzip, trailers\r\nTransfer-Encoding: %b\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (coding.encode(), len(BODY), BODY)
        )
        assert caller.answer()[0] == 200


@pytest.mark.parametrize(
    ("header", "known"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_an_etag_is_compared_weakly(header: str, *, known: bool) -> None:
    assert is_known('"a"', header) is known


def test_a_checkpoint_that_the_client_has_is_not_sent_again(where: Address) -> None:
    path = "/models/line/versions/1/checkpoint"
    status, headers, body = asked(where, "GET", path)
    version = json.loads(asked(where, "GET", "/models/line/versions/1")[2])
    assert headers["etag"] == f'"{version["sha256"]}"'
    for method in ("GET", "HEAD"):
        again = asked(where, method, path, f"Host: localhost\r\nIf-None-Match: {headers['etag']}\r\n")
        assert (again[0], again[2], again[1]["etag"]) == (304, b"", headers["etag"])
        other = asked(where, method, path, 'Host: localhost\r\nIf-None-Match: "other"\r\n')
        assert (other[0], other[1]) == (status, headers)
    part = f"Host: localhost\r\nRange: bytes=0-9\r\nIf-Range: {headers['etag']}\r\n"
    assert asked(where, "GET", path, part)[::2] == (206, body[:10])


def test_a_request_of_http_1_0_gets_no_100_continue(where: Address) -> None:
    more = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\nExpect: 100-continue\r\n"
    assert asked(where, "POST", "/train", more, "1.0")[0] in {400, 422}
