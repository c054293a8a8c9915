"""Errors that pages of a listed origin can read (CORS): those outside the routes, and refused preflight requests."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.delivery.registry import Registry
from service.inference.admission import Admission
from service.settings import Settings
from service.web import protocol
from service.web.protocol import MAX_HEAD_BYTES, MAX_HEADERS
from tests.fakes import LINE, InProcess, save_line
from tests.serving import BASE_URL, line_recipes, serving
from tests.sockets import Address, Connection, listening
from tests.templates import migrated

APP = "https://app.example.com"
EVIL = "https://evil.example"
START = b"POST /predict/line HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nOrigin: "
MANY = b"X-Many: 1\r\n" * (MAX_HEADERS + 1)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
UNREAD: dict[str, tuple[int, bytes]] = {
    "too many headers": (431, MANY + b"\r\n"),
    "a head that is too large": (431, b"X-Large: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"),
    "a head without an end": (431, b"X-Short: 1\r\nX-Large: " + b"x" * (MAX_HEAD_BYTES + 1)),
    "too many trailers": (431, CHUNKED + b"0\r\n" + MANY + b"\r\n"),
    "two hosts": (400, b"Host: localhost\r\nContent-Length: 0\r\n\r\n"),
    "another transfer coding": (501, b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a broken chunk": (400, CHUNKED + b"xyz\r\n"),
    "a body that is too large": (413, b"Content-Length: 999999999\r\n\r\n"),
    "a body that is too slow": (408, b"Content-Length: 99\r\n\r\n{"),
    "a full queue": (429, b"Content-Length: 16\r\n\r\n" + b'{"inputs":[[1]]}'),
}


def app_in(folder: Path, **settings: Any) -> FastAPI:
    return create_app(
        Settings(store=migrated(folder / "store"), **settings),
        {"line": LINE},
        folder,
        line_recipes,
        partial(InProcess, {"line": LINE}),
    )


@pytest.fixture(scope="module", params=["one origin", "all origins", "off"])
def listener(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Address, str]]:
    """The address of a service, and the setting of its origins."""
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    origins = {"one origin": APP, "all origins": "*", "off": ""}[request.param]
    keys = "predict:reads" if origins == "*" else ""
    with listening(app_in(folder, cors_origins=origins, api_keys=keys)) as (where, _):
        yield where, origins


def allowed(origins: str, origin: str) -> str | None:
    """The value of Access-Control-Allow-Origin that an origin is sent."""
    return origins if origins == "*" else origin if origin in origins.split(",") else None


@pytest.mark.many
@pytest.mark.parametrize("origin", [APP, EVIL])
@pytest.mark.parametrize("kind", UNREAD)
def test_refusals_of_the_server_can_be_read_by_a_listed_origin(
    listener: tuple[Address, str], kind: str, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, origins = listener
    status, rest = UNREAD[kind]
    if status == 408:
        monkeypatch.setattr(protocol, "PATIENCE_S", 0.0)
        monkeypatch.setattr(protocol, "LEAST_BYTES_PER_S", 1e9)
    if status == 429:
        monkeypatch.setattr(Admission, "full", lambda _: True)
    with Connection(where) as caller:
        caller.send(START + origin.encode() + b"\r\nAuthorization: Bearer reads\r\n" + rest)
        answered, content = caller.answer()
    assert caller.headers.get("access-control-allow-origin") == allowed(origins, origin)
    if allowed(origins, origin):
        assert answered == status, content
    if origins == APP == origin:
        assert caller.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in caller.headers["vary"]
        assert "Retry-After" in caller.headers["access-control-expose-headers"]
    assert caller.headers["content-type"] == "application/problem+json"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    specs = {"line": LINE, "fresh": LINE}
    with serving(folder, specs, cors_origins=APP) as client:
        yield client


@pytest.mark.parametrize("origin", [APP, EVIL])
def test_an_unexpected_error_can_be_read_by_a_listed_origin(
    client: TestClient, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Registry, "history", fail)
    response = client.get("/models/line/promotions", headers={"Origin": origin})
    assert (response.status_code, response.json()["title"]) == (500, "Internal error")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("access-control-allow-origin") == allowed(APP, origin)
    assert response.headers["cache-control"] == "no-store"
    assert "secret" not in response.text


def test_an_unexpected_error_is_raised_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of the store")

    save_line(tmp_path)
    monkeypatch.setattr(Registry, "history", fail)
    app = app_in(tmp_path, cors_origins=APP)
    with TestClient(app, BASE_URL) as client, pytest.raises(RuntimeError, match="of the store"):
        client.get("/models/line/promotions", headers={"Origin": APP})


def test_no_live_version_is_an_answer_that_a_listed_origin_can_read(client: TestClient) -> None:
    response = client.post("/predict/fresh", json={"inputs": [[1]]}, headers={"Origin": APP})
    assert response.status_code == 503
    assert response.headers["access-control-allow-origin"] == APP


def preflight(client: TestClient, origin: str, method: str = "POST", path: str = "/predict/line") -> Any:
    return client.options(path, headers={"Origin": origin, "Access-Control-Request-Method": method})


@pytest.mark.parametrize("origin", [EVIL, "null", f"{APP}:8443", "x" * 5000])
def test_a_refused_preflight_is_a_problem_document_that_names_the_setting(client: TestClient, origin: str) -> None:
    response = preflight(client, origin)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (400, 400)
    assert origin[:80] in response.json()["detail"]
    assert "TORCHLOOP_CORS_ORIGINS" in response.json()["detail"]
    assert len(response.content) < 1000
    assert "access-control-allow-origin" not in response.headers


def test_a_method_that_no_route_has_is_a_refused_preflight(client: TestClient) -> None:
    response = preflight(client, APP, "BREW")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert "'BREW'" in response.json()["detail"]


@pytest.mark.parametrize("keys", ["", "predict:reads"])
def test_a_preflight_names_the_setting_if_cors_is_off(tmp_path: Path, keys: str) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, api_keys=keys) as client:
        response = preflight(client, APP)
        assert response.status_code == (401 if keys else 405)
        assert "TORCHLOOP_CORS_ORIGINS" in response.json()["detail"]
        assert "CORS" not in client.options("/predict/line").json()["detail"]
