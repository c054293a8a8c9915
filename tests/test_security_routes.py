"""Promises of docs/security.md for every route, tested in process."""

import io
import logging
import pickle
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount
from starlette.testclient import TestClient

from models import catalog
from service.execution.recipes import RecipeSchema
from service.logs import configure_logging
from service.settings import Key
from tests.fakes import LINE, save_line
from tests.hostile import INSIDE
from tests.rules import RULES
from tests.serving import LINE_RECIPE, serving

PUBLIC = {"/", "/page/{name}", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
VERBS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "EVIL"]
FILLED = {"{model}": "regressor", "{version}": "1", "{job_id}": "0" * 32, "{name}": "main.js", "{path:path}": "x"}
SENT = "\r\nERROR forged\x1b[31m\u2028\x00"  # what a line in a log must not be made of


async def recipes() -> Mapping[str, RecipeSchema]:
    """As if each shipped model could be trained as the fake one is."""
    return dict.fromkeys(catalog.specs(), LINE_RECIPE)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(recipes=recipes) as client:
        yield client


@pytest.fixture(scope="module")
def locked() -> Iterator[TestClient]:
    with serving(api_keys=(Key(scope="admin", secret="a"),)) as client:  # noqa: S106
        yield client


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


def posts() -> list[str]:
    """The address of each POST route, with names of what is there; what is unloaded is loaded again at the end."""
    found = [filled(rule.split()[1]) for rule in RULES if rule.startswith("POST ")]
    return sorted(found, key=lambda path: path.endswith("/load"))


def taken(client: TestClient) -> Iterator[tuple[str, str]]:
    """Route and name of everything that a caller may say by name, as the description has it: names and formats."""
    description = client.get("/openapi.json").json()

    def names(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if "$ref" in schema:
                yield from names(description["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
            yield from schema.get("properties", {})
            yield from (value for key, value in schema.items() if key == "format" and isinstance(value, str))
            for value in schema.values():
                yield from names(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from names(value)

    for path, operations in description["paths"].items():
        for operation in operations.values():
            yield from ((path, parameter["name"]) for parameter in operation.get("parameters", []))
            yield from ((path, name) for name in names(operation.get("requestBody", {})))
    for model in client.get("/models").json()["models"]:
        yield from (("/train", name) for name in (model["hyperparameters"] or {}).get("properties", {}))


def test_s01_s19_no_route_takes_an_address_or_a_path(client: TestClient) -> None:
    """Neither an address to fetch from, nor a file to read, write or log to."""
    found = list(taken(client))
    assert ("/train", "config") in found
    wrong = r"ur[il]|href|link|host|endpoint|proxy|callback|webhook|path|file|folder|dir(ectory)?$|log|trace|template"
    forms = {("/predict/mnist", "file"), ("/explain/mnist", "file")}  # the bytes of one; see the test of s22
    assert {(path, name) for path, name in found if re.search(wrong, name, re.IGNORECASE)} == forms


def test_s10_nothing_that_is_run_can_be_named(client: TestClient) -> None:
    wrong = {"entrypoint", "command", "cmd", "env", "runtime_env", "cwd", "shell", "args", "image", "script"}
    assert not wrong & {name for _, name in taken(client)}


@pytest.mark.parametrize("field", ["entrypoint", "command", "env", "runtime_env", "cwd"])
def test_s10_an_order_that_names_what_to_run_is_refused(line: TestClient, field: str) -> None:
    value: Any
    for value in ("touch /tmp/x", {"A": "b"}, None):
        for body in ({"model": "line", field: value}, {"model": "line", "config": {field: value}}):
            response = line.post("/train", json=body)
            assert response.status_code == 422
            assert field in response.json()["detail"]
    assert line.get("/jobs").json()["jobs"] == []


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("line")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


@pytest.mark.slow
def test_s01_s22_nothing_is_fetched_from_an_address_that_was_sent(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def refuse(*words: object, **_: object) -> NoReturn:
        tried.append(words)
        raise OSError("no connection is opened in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for address in ("http://127.0.0.1:9/x.png", "file:///etc/passwd", "ftp://evil.example/x.pt", "s3://bucket/x"):
        for path in posts():
            part = f'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n{address}\r\n--x--\r\n'
            form = client.post(path, content=part, headers={"content-type": "multipart/form-data; boundary=x"})
            said = [form, client.post(path, json={"inputs": [address], "model": address, "url": address})]
            said.append(client.post(path, content=address.encode(), params={"arguments": f'{{"url": "{address}"}}'}))
            harmless = path.endswith(("/rollback", "/load", "/unload", "/index"))
            for response in said:
                assert 400 <= response.status_code < 500 or harmless, (path, response.text)
    assert not tried


TYPES = [
    "", "application/json", "application/octet-stream", "application/x-npy", "application/pickle", "text/plain",
    "application/x-pickle", "application/python-pickle", "application/vnd.bentoml+pickle", "multipart/form-data",
    "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "image/png", "application/xml", "*/*",
]  # fmt: skip
watching: list[str] = []
seen: list[str] = []


def watch(event: str, words: tuple[Any, ...]) -> None:
    """An audit hook, which stays for good: it notes only while something is `watching`."""
    if watching and event in {"pickle.find_class", "os.system", "subprocess.Popen"}:
        seen.append(f"{watching[-1]}: {event} {words}")


class Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


@pytest.mark.slow
def test_s08_no_content_type_has_a_pickle_read(client: TestClient) -> None:
    sys.addaudithook(watch)
    pickled = pickle.dumps(Canary())
    try:
        watching.append("a pickle that is read on purpose")
        pickle.loads(pickled)  # noqa: S301 - the hook is seen to work
        assert len(seen) == 1
        for path in posts():
            for content_type in TYPES:
                for headers in (
                    {"content-type": content_type},
                    {"payload-container": "pickle", "accept": content_type},
                ):
                    watching.append(f"{path} {headers}")
                    response = client.post(path, content=pickled, headers={k: v for k, v in headers.items() if v})
                    harmless = path.endswith(("/rollback",)) and response.status_code == 409
                    assert response.status_code in {400, 404, 415, 422} or harmless, (watching[-1], response.text)
    finally:
        watching.clear()
    assert len(seen) == 1, seen


@pytest.mark.slow
def test_s11_s35_without_a_key_each_verb_of_each_route_is_401(locked: TestClient) -> None:
    for path in {rule.split()[1] for rule in RULES}:
        for verb in VERBS:
            status = locked.request(verb, filled(path)).status_code
            assert (status == 401) == (path not in PUBLIC), (verb, path, status)
    for path in ("/redoc", "/docs/", "/openapi.yaml", "/static", "/static-offline-docs", "/ws", "/admin", "/.env"):
        assert locked.get(path).status_code == 401, path


@pytest.mark.slow
def test_s15_no_error_of_any_route_shows_the_inside(client: TestClient) -> None:
    bodies: list[dict[str, Any]] = [
        {}, {"json": {}}, {"json": []}, {"json": {"version": "x"}}, {"content": b"{"}, {"content": b"\xff" * 100},
        {"json": {"model": "regressor", "config": {"epochs": "x", "y": {}}}},
        {"json": {"inputs": [{"name": "input", "shape": "x", "datatype": {}}]}},
    ]  # fmt: skip
    for rule in RULES:
        method, path = rule.split()
        for body in bodies:
            for odd in ("?version=x&limit=x&cursor=x&at=x&method=x&arguments=x&state=x", ""):
                response = client.request(method, filled(path) + odd, **body)
                assert response.status_code < 500, (rule, response.text)
                assert response.status_code < 400 or not INSIDE.search(response.text), (rule, response.text)


@pytest.mark.slow
def test_s19_s28_a_request_cannot_inject_lines_into_the_log(client: TestClient) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    configure_logging("text")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    try:
        for rule in RULES:
            method, path = rule.split()
            for body in ({"model": SENT, "config": {SENT: SENT}}, {"inputs": [SENT]}, {"parameters": {SENT: SENT}}):
                client.request(method, filled(path), json=body, params={"arguments": SENT, "version": SENT, "at": SENT})
            client.request(method, filled(path.replace("{model}", "a%0d%0aERROR%20forged%1b%5b31m")))
        logging.getLogger("x").error("%s", SENT, extra={"model": SENT})
        try:
            raise ValueError(SENT)
        except ValueError:
            logging.getLogger("x").exception("failed")
    finally:
        root.handlers[:], root.level = before
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert any("forged" in line for line in lines)
    for line in lines:
        assert line.isprintable(), line
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR) |    ", line), line


@pytest.mark.slow
def test_s26_a_verb_that_is_no_method_is_405(client: TestClient) -> None:
    for path in {rule.split()[1] for rule in RULES}:
        for verb in ("EVIL", "__INIT__", "DISPATCH", "METHOD_NOT_ALLOWED", "PROPFIND"):
            assert client.request(verb, filled(path)).status_code in {404, 405}, (verb, path)


def test_s26_s34_no_route_is_a_class_of_methods_or_a_folder_that_callers_fill(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    for route in client.app.routes:
        endpoint = getattr(route, "endpoint", None)
        assert not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint))
    mounts = [route for route in client.app.routes if isinstance(route, Mount)]
    assert [mount.path for mount in mounts] == ["/static-offline-docs"]
    files: Any = mounts[0].app
    assert "site-packages" in str(files.directory)
