"""Each kind of error has one status and one shape, for every way of answering."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.mnist import drawn_seven
from service.app import create_app
from service.errors import Conflict, QueueFull, ServiceError, Unauthorized
from service.settings import Settings
from service.web import problems
from tests.fakes import LINE, InProcess, save_line
from tests.serving import BASE_URL, line_recipes, png, serving
from tests.templates import migrated

MISSING = {"type": "missing", "loc": ("body", "model"), "msg": "Field required"}
ERRORS: list[tuple[Exception, int, str]] = [
    (ServiceError("broken"), 500, "Internal error"),
    (Conflict("taken"), 409, "Conflict"),
    (MalformedInput("No JSON", "send JSON"), 400, "No JSON"),
    (TooManySamples(9, 8), 413, "Too many samples"),
    (InvalidInput("No digit", "the picture is empty"), 422, "No digit"),
    (HTTPException(405, "no", {"Allow": "GET"}), 405, "Method Not Allowed"),
    (RequestValidationError([MISSING]), 422, "Invalid request"),
    (RequestValidationError([{**MISSING, "type": "json_invalid"}]), 400, "Invalid request"),
    (ClientDisconnect(), 400, "Client disconnected"),
    (Conflict("a lone \ud800 of a client"), 409, "Conflict"),
    (InvalidInput("No digit", "\udfff"), 422, "No digit"),
    (RequestValidationError([{**MISSING, "loc": ("body", "\ud800")}]), 422, "Invalid request"),
    (LookupError("a secret place"), 500, "Internal error"),
]


@pytest.mark.parametrize(("err", "status", "title"), ERRORS, ids=lambda value: str(value)[:20])
def test_an_error_becomes_a_problem_document(err: Exception, status: int, title: str) -> None:
    response = problems.of(err, "/predict/line")
    body = orjson.loads(bytes(response.body))
    assert (response.status_code, response.media_type) == (status, problems.MEDIA_TYPE)
    assert (body["status"], body["title"], body.keys()) == (status, title, problems.SCHEMA["properties"].keys())  # type: ignore[attr-defined]
    assert "secret" not in body["detail"]


@pytest.mark.parametrize("path", ["/v2", "/v2/models/line/infer"])
@pytest.mark.parametrize(("err", "status", "title"), ERRORS, ids=lambda value: str(value)[:20])
def test_under_v2_an_error_has_the_shape_of_that_protocol(err: Exception, status: int, title: str, path: str) -> None:
    response = problems.of(err, path)
    body = orjson.loads(bytes(response.body))
    assert (response.status_code, response.media_type) == (400 if status == 422 else status, "application/json")
    assert body.keys() == {"error"}
    assert body["error"].startswith(f"{title}: ")
    assert "secret" not in body["error"]


@pytest.mark.parametrize("path", ["/models", "/v2/models"])
def test_of_a_long_detail_start_and_end_are_kept(path: str) -> None:
    body = bytes(problems.of(Conflict(f"key {'x' * 100_000} is there twice: send it once"), path).body)
    assert len(body) < 5000
    assert b"key xxx" in body
    assert b"xxx is there twice: send it once" in body


def test_an_unexpected_error_says_that_the_connection_ends() -> None:
    assert problems.of(RuntimeError("x")).headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/models", "/v2/models"])
def test_an_error_keeps_its_headers(path: str) -> None:
    assert problems.of(QueueFull(), path).headers["retry-after"] == "1"
    assert problems.of(Unauthorized("key", {"WWW-Authenticate": "Bearer"}), path).headers["www-authenticate"]
    assert problems.of(HTTPException(405, "no", {"Allow": "GET"}), path).headers["allow"] == "GET"


@pytest.mark.parametrize("part", ["preprocess", "postprocess"])
def test_unexpected_errors_of_predict_and_v2_are_500_and_counted(tmp_path: Path, part: str) -> None:
    save_line(tmp_path)
    broken = False

    def breaks(*arguments: Any) -> Any:
        if broken:
            raise LookupError("a secret place")
        return getattr(LINE, part)(*arguments)

    changed: dict[str, Any] = {part: breaks}
    specs = {"line": replace(LINE, **changed)}
    settings = Settings(store=migrated(tmp_path / "store"), backend="eager")
    app = create_app(settings, specs, tmp_path, line_recipes, partial(InProcess, specs))
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    with TestClient(app, BASE_URL, raise_server_exceptions=False) as client:
        broken = True
        answers = [
            client.post("/predict/line", json={"inputs": [[1]]}),
            client.post("/v2/models/line/infer", json={"inputs": [tensor]}),
        ]
        broken = False
        assert [answer.status_code for answer in answers] == [500, 500]
        assert [answer.headers["content-type"] for answer in answers] == [problems.MEDIA_TYPE, "application/json"]
        assert answers[1].json() == {"error": "Internal error: the service failed on this request; its log says why"}
        assert not any("secret" in answer.text for answer in answers)
        assert 'torchloop_requests_total{model="line",status="500"} 2.0' in client.get("/metrics").text


SURROGATES = [
    ("POST", "/train", '{"\\ud800": 1, "model": "line"}'),
    ("POST", "/train", '{"model": "\\ud800"}'),
    ("POST", "/models/line/promote", '{"version": 1, "\\udfff": 2}'),
    ("POST", "/models/line/promote", '{"version": "\\udfff"}'),
    ("POST", "/models/%ED%A0%80/promote", '{"version": 1}'),
    ("POST", "/predict/line", '{"inputs": ["\\ud800"]}'),
    ("POST", "/predict/line", '{"\\ud800": [[1]]}'),
    ("POST", "/predict/line?version=%ED%A0%80", '{"inputs": [[1]]}'),
    ("POST", "/predict/%ED%A0%80", '{"inputs": [[1]]}'),
    ("POST", "/explain/line", '{"\\ud800": [[1]]}'),
    ("POST", "/explain/line?method=%ED%A0%80", '{"inputs": [[1]]}'),
    (
        "POST",
        "/v2/models/line/infer",
        '{"inputs": [{"name": "\\ud800", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}',
    ),
    ("POST", "/v2/models/line/infer", '{"id": "\\ud800", "inputs": []}'),
    ("POST", "/v2/repository/index", '{"ready": "\\ud800"}'),
    ("GET", "/models/line/promotions?at=%ED%A0%80", ""),
    ("GET", "/jobs?model=%ED%A0%80&state=%ED%A0%80", ""),
    ("GET", "/jobs?cursor=%ED%A0%80", ""),
    ("GET", "/models/%ED%A0%80", ""),
    ("GET", "/%ED%A0%80", ""),
]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


@pytest.mark.parametrize(("method", "address", "body"), SURROGATES, ids=ascii)
def test_a_lone_surrogate_is_never_a_500(line: TestClient, method: str, address: str, body: str) -> None:
    response = line.request(method, address, content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500, response.text
    assert response.json().keys() in [{"error"}, problems.SCHEMA["properties"].keys()]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def shipped() -> Iterator[TestClient]:
    with serving() as client:
        yield client


@pytest.mark.parametrize("name", [b"\xed\xa0\x80.png", b"\xff\xfe.png", b"\\ud800.png", b"a\x00b.png"])
def test_a_file_name_that_is_not_utf8_changes_nothing(shipped: TestClient, name: bytes) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="' + name + b'"\r\n\r\n' + png(drawn_seven())
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = shipped.post("/predict/mnist", content=part + b"\r\n--x--\r\n", headers=headers)
    assert response.status_code in {200, 400}
    named = shipped.post(
        "/train", content=b'{"model": "mnist"}', headers=[(b"idempotency-key", b"\xff"), (b"x", b"\xed")]
    )
    assert named.status_code < 500
