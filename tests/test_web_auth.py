"""Authorisation of every route with every key, and CSRF checks."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from service.api import access
from service.api.access import TABLE
from service.app import create_app
from service.settings import Key, Scope, Settings, SettingsError, from_environment
from service.web.exchange import AT_HEAD, AtHead
from tests.fakes import LINE, ROOT, InProcess, save_line
from tests.rules import RULES
from tests.serving import BASE_URL, line_recipes, serving
from tests.templates import migrated

SECRETS: dict[Scope, str] = {"predict": "p-s3cret", "train": "t-s3cret", "admin": "a-s3cret"}
KEYS = tuple(Key(scope=scope, secret=secret) for scope, secret in SECRETS.items())
OPENED_BY: dict[Scope | None, list[Scope | None]] = {
    None: [None, "predict", "train", "admin"],
    "predict": ["predict", "train", "admin"],
    "train": ["train", "admin"],
    "admin": ["admin"],
}


@pytest.fixture(scope="module")
def locked() -> Iterator[TestClient]:
    with serving(api_keys=KEYS) as client:
        yield client


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


def test_requests_without_a_key_are_not_rejected_early_and_take_no_queue_slot(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, api_keys=KEYS, queue_limit=1) as client:
        at_head: AtHead = client.app_state[AT_HEAD]

        async def refused(authorizations: list[str]) -> list[bool]:  # whose heads have come in the same moment
            heads = [[(b"authorization", value.encode())] if value else [] for value in authorizations]
            return [at_head(b"POST", b"/predict/line", head) is not None for head in heads]

        strangers = ["", "Bearer wrong", "Basic p-s3cret"]
        assert client.portal
        assert client.portal.call(refused, [*strangers, *strangers, "Bearer p-s3cret"]) == [False] * 7
        assert client.portal.call(refused, ["Bearer p-s3cret", *strangers, "bearer a-s3cret"]) == [False] * 4 + [True]
        assert (
            'torchloop_requests_total{model="line",status="429"} 1.0'
            in client.get("/metrics", headers={"Authorization": "Bearer p-s3cret"}).text
        )


def registered(client: TestClient) -> set[str]:
    """`METHOD /path` of every route of the application; HEAD is what GET is."""
    assert isinstance(client.app, FastAPI)
    found = set()
    for route in iter_route_contexts(client.app.routes):
        if isinstance(route.original_route, Mount):
            found.add(f"GET {route.original_route.path}/{{path:path}}")
        else:
            assert route.methods, f"{route.path} is no plain HTTP route: decide about it here"
            found |= {f"{method} {route.path}" for method in route.methods - {"HEAD"}}
    return found


def bearer(scope: Scope | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[scope]}"} if scope else {}


def test_s11_every_route_has_a_rule_and_every_rule_a_route(locked: TestClient) -> None:
    assert registered(locked) == set(access.RULES)


@pytest.mark.many
@pytest.mark.parametrize("rule", RULES)
def test_s11_a_route_is_opened_by_its_scope_and_those_above_and_by_no_other(locked: TestClient, rule: str) -> None:
    method, path = rule.split()
    path = path.replace("{model}", "none").replace("{version}", "1").replace("{job_id}", "x" * 32)
    path = path.replace("{path:path}", "swagger-ui.css")
    for verb in [method, "HEAD"] if method == "GET" else [method]:
        refused = {scope: locked.request(verb, path, headers=bearer(scope)).status_code for scope in OPENED_BY}
        opened = [scope for scope, status in refused.items() if status not in {401, 403}]
        assert opened == OPENED_BY[RULES[rule].scope], refused
        assert RULES[rule].scope is None or refused[None] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/something/new"),
        ("GET", "/something/new"),
        ("GET", "/health/live/"),
        ("GET", "//health/live"),
        ("GET", "/health/live/x"),
        ("POST", "/jobs/x/y/cancel"),
        ("GET", "/models/a/b"),
    ],
)
def test_s11_a_route_missing_from_the_table_needs_an_admin_key(locked: TestClient, method: str, path: str) -> None:
    assert TABLE.scope(method, path) == "admin"
    assert locked.request(method, f"{BASE_URL}{path}").status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/something/new", "/models/a/b", "/health/live/x", "/v2/x", "/jobs/x/y/z", "/docs/"])
def test_an_unknown_path_is_404_for_every_valid_key_and_401_without_one(
    locked: TestClient, method: str, path: str
) -> None:
    answers = {scope: locked.request(method, path, headers=bearer(scope)) for scope in OPENED_BY}
    assert {scope: answer.status_code for scope, answer in answers.items()} == {
        None: 401, "predict": 404, "train": 404, "admin": 404,
    }  # fmt: skip
    assert answers["predict"].content == answers["admin"].content
    assert method == "HEAD" or "no such path" in answers["predict"].text


def test_an_unknown_path_is_not_counted_as_refused(tmp_path: Path) -> None:
    with serving(tmp_path, {"line": LINE}, api_keys=KEYS) as client:
        client.get("/something/new", headers=bearer("predict"))
        metrics = client.get("/metrics", headers=bearer("predict")).text
        assert 'torchloop_refused_requests_total{status="404"}' not in metrics


def test_a_route_missing_from_the_table_is_404_for_lesser_keys(tmp_path: Path) -> None:
    specs = {"line": LINE}
    child = partial(InProcess, specs)
    app = create_app(Settings(store=migrated(tmp_path), api_keys=KEYS), specs, tmp_path, line_recipes, child)

    @app.get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    with TestClient(app, BASE_URL) as client:
        statuses = {scope: client.get("/forgotten", headers=bearer(scope)).status_code for scope in OPENED_BY}
    assert statuses == {None: 401, "predict": 404, "train": 404, "admin": 200}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("DELETE", "/models/mnist", "predict"),
        ("PUT", "/jobs", "predict"),
        ("TRACE", "/models", "predict"),
        ("OPTIONS", "/train", "train"),
        ("GET", "/models/mnist/promote", "admin"),
        ("POST", "/health/live", None),
        ("DELETE", "/models/mnist/versions", "predict"),
    ],
)
def test_s11_a_method_that_an_address_does_not_take_needs_no_more_than_the_address(
    locked: TestClient,
    method: str,
    path: str,
    scope: Scope | None,
) -> None:
    assert TABLE.scope(method, path) == scope
    assert locked.request(method, path, headers=bearer(scope)).status_code == 405


@pytest.mark.parametrize(
    "header",
    [None, "Bearer", "Bearer ", "Bearer x", "Basic p-s3cret", "bearer", "Bearer p-s3crett", "p-s3cret", "Bearer \xff"],
)
def test_without_a_good_key_the_answer_is_a_challenge(locked: TestClient, header: str | None) -> None:
    headers = {"authorization": header.encode("latin-1")} if header else {}
    response = locked.get("/models", headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("host", ["a/?x=", "evil.example", "localhost/health/live", "x@localhost", "[", "", "\xff"])
@pytest.mark.parametrize("path", ["/models", "/models/", "/metrics", "/docs"])
def test_s25_the_host_header_grants_no_access_and_is_never_echoed(locked: TestClient, host: str, path: str) -> None:
    headers = {"host": host.encode("latin-1")}
    assert locked.get(path, headers=headers).status_code == 401  # type: ignore[arg-type]
    opened = locked.get(path, headers={**headers, **bearer("admin")}, follow_redirects=False)  # type: ignore[arg-type]
    assert opened.status_code in {200, 404}
    assert "location" not in opened.headers


@pytest.mark.parametrize("host", ["proxy.example", "10.0.0.1:8000"])
def test_with_keys_any_host_is_served_so_that_proxies_work(locked: TestClient, host: str) -> None:
    headers = {"host": host, "origin": "https://proxy.example", **bearer("predict")}
    body = {"inputs": [[0.5]]}
    assert locked.post("/predict/regressor", json=body, headers=headers).status_code == 200


HOME = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:9", "127.8.8.8:9", "[::1]", "[::1]:8000"]
AWAY = ["", "testserver", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.1", "[::2]"]


@pytest.mark.parametrize("host", HOME)
def test_s09_without_keys_names_of_this_machine_are_answered(line: TestClient, host: str) -> None:
    assert line.get("/models", headers={"host": host}).status_code == 200


@pytest.mark.many
@pytest.mark.parametrize("host", [*AWAY, "0.0.0.0:8000", "[", "\xff", "localhost@evil.example"])
def test_s09_without_keys_a_name_from_elsewhere_is_refused_everywhere(line: TestClient, host: str) -> None:
    for method, path in [rule.split() for rule in RULES]:
        response = line.request(method, path, headers={"host": host.encode("latin-1")})  # type: ignore[arg-type]
        assert response.status_code == 421, path
        kind = "application/json" if path.startswith("/v2") else "application/problem+json"
        assert response.headers["content-type"] == kind


@pytest.mark.many
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": ""},
        {"origin": "http://localhost.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": BASE_URL, "sec-fetch-site": "cross-site"},
    ],
)
def test_s09_a_foreign_page_changes_nothing(line: TestClient, headers: dict[str, str]) -> None:
    for method, path in [rule.split() for rule in RULES]:
        status = line.request(method, path, headers=headers, json={}).status_code
        assert (status == 403) == (method not in {"GET", "OPTIONS"}), path


@pytest.mark.parametrize("headers", [{}, {"origin": BASE_URL}, {"sec-fetch-site": "same-origin", "origin": BASE_URL}])
def test_s09_a_page_of_our_own_and_a_program_may(line: TestClient, headers: dict[str, str]) -> None:
    assert line.post("/predict/line", json={"inputs": [[1]]}, headers=headers).status_code == 200
    assert line.post("/train", json={"model": "line"}, headers=headers).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"],
)
@pytest.mark.parametrize(
    ("path", "body"),
    [("/train", b'{"model": "line"}'), ("/models/line/promote", b'{"version": 1}')],
)
def test_s09_s29_a_body_that_is_not_called_json_is_not_read_as_json(
    line: TestClient,
    path: str,
    body: bytes,
    content_type: str,
) -> None:
    before = line.get("/jobs").json()["jobs"]
    response = line.post(path, content=body, headers={"content-type": content_type} if content_type else {})
    assert (response.status_code, response.json()["detail"]) == (415, "send the body as application/json")
    assert line.get("/jobs").json()["jobs"] == before


def test_the_history_names_the_scope_of_the_key(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, api_keys=KEYS) as client:
        client.post("/models/line/versions", content=(tmp_path / "line.pt").read_bytes(), headers=bearer("admin"))
        assert client.post("/models/line/promote", json={"version": 2}, headers=bearer("admin")).status_code == 200
        history = client.get("/models/line/promotions", headers=bearer("predict")).json()["promotions"]
    assert history[-1]["by"] == "admin"


def test_s12_without_keys_the_network_is_not_listened_to() -> None:
    assert Settings().host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "example.org", "10.0.0.1"):
        with pytest.raises(SettingsError, match="set TORCHLOOP_API_KEYS as well"):
            from_environment({"TORCHLOOP_HOST": host})


def texts_with_a_possible_secret(client: TestClient) -> Iterator[str]:
    """What a locked service says: answers to all its routes, with a good key, a bad one and none."""
    for rule in RULES:
        method, path = rule.split()
        path = path.replace("{path:path}", "swagger-ui.css").replace("{model}", "line").replace("{version}", "1")
        for headers in ({}, {"Authorization": "Bearer wr0ng-s3cret"}, bearer("admin")):
            if path != "/jobs/{job_id}/events":
                response = client.request(method, path, headers=headers, json={"version": "x"})
                yield f"{response.headers} {response.text}"


@pytest.mark.slow
def test_no_secret_is_ever_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    database = f"sqlite:///{tmp_path / 's3cret.db'}"
    environ = {f"TORCHLOOP_{name}": "a-s3cret" for name in ("API_KEYS", "PORT", "WORKER")}
    shown = subprocess.run(
        [sys.executable, "-m", "service", "--help"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    settings = Settings(api_keys=KEYS, database_url=database)
    said = [shown.stdout, shown.stderr, repr(settings), str(settings), repr(KEYS)]
    with pytest.raises(SettingsError) as raised:
        from_environment({**environ, "TORCHLOOP_DATABASE_URL": "mysql://s3cret"})
    said += [str(raised.value), repr(raised.value)]
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, api_keys=KEYS, database_url=database) as client:
        said += texts_with_a_possible_secret(client)
    said += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    leaks = [re.search(r".{0,80}s3cret.{0,20}", text) for text in said if "s3cret" in text]
    assert not leaks


def test_the_guard_holds_no_secret(locked: TestClient) -> None:
    def strings(value: Any) -> str:
        return repr(getattr(value, "__dict__", value))

    layer: Any = locked.app.middleware_stack  # type: ignore[attr-defined]
    seen = []
    while layer is not None and not isinstance(layer, FastAPI):
        seen += [strings(layer), strings(getattr(layer, "_keys", None))]
        layer = getattr(layer, "_app", None) or getattr(layer, "app", None)
    assert any("Keyring" in text for text in seen)
    assert not any("s3cret" in text for text in seen)


def test_refused_requests_are_counted_by_status(tmp_path: Path) -> None:
    with serving(tmp_path, {"line": LINE}, api_keys=KEYS) as client:
        for key in ("wrong", "p-s3cret"):
            client.post("/train", headers={"Authorization": f"Bearer {key}"})
        text = client.get("/metrics", headers={"Authorization": "Bearer p-s3cret"}).text
        assert 'torchloop_refused_requests_total{status="401"} 1.0' in text
        assert 'torchloop_refused_requests_total{status="403"} 1.0' in text


@pytest.mark.parametrize(("authorization", "said"), [("", "send a key"), ("Bearer wrong", "is not valid: send a key")])
def test_a_wrong_key_is_told_from_a_missing_one(locked: TestClient, authorization: str, said: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    detail = locked.get("/models", headers=headers).json()["detail"]
    assert said in detail
    assert ("not valid" in detail) == bool(authorization)
