"""Texts that do not have the form of their parameter: the error says in words what to write, and shows no pattern."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.capturing import capturing

BAD = "\0?"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with capturing(tmp_path_factory.mktemp("store")) as client:
        yield client


def has_pattern(schema: Any) -> bool:
    return "pattern" in schema or any(has_pattern(one) for one in schema.get("anyOf", ()))


def test_no_parameter_shows_its_pattern(client: TestClient) -> None:
    found = 0
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if not has_pattern(parameter["schema"]) or parameter["in"] == "header":
                    continue
                place, name = parameter["in"], parameter["name"]
                address = path.replace(f"{{{name}}}", "%01")
                answer = client.request(method, address, params={name: BAD} if place == "query" else None, json={})
                detail = answer.json()["detail"]
                assert answer.status_code == 422, (path, detail)
                assert f"{place}.{name}: " in detail
                assert not any(mark in detail for mark in ("^", "\\", "[0-9", "[a-z", "pattern")), detail
                found += 1
    assert found > 10


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("GET", "/models/mnist/versions/1/accuracy?window=1w", None, "query.window: write minutes, hours or days"),
        ("GET", "/models/mnist/drift?window=31d", None, "query.window: write minutes, hours or days, as 30m, 1h or 7d"),
        ("GET", "/models/mnist/drift?version=x", None, "query.version: must be live, or the number of a version"),
        ("GET", "/predictions/7", None, "path.prediction: must be the id of an answer, such as 0199d2c4f1a-"),
        ("GET", "/models/mnist/captures?cursor=a", None, "query.cursor: send the `cursor` of the page before"),
        ("DELETE", "/models/mnist/captures?key=%00", None, "query.key: must have 1 to 200 printable ASCII characters"),
        ("PUT", "/models/mnist/retrain", {"every": "P1M"}, "body.every: must be an ISO 8601 duration in days"),
        (
            "POST",
            "/train",
            {"model": "mnist", "feedback": {"since": "7d"}},
            "since: must be an ISO 8601 duration in days, hours, minutes and seconds, such as P7D, PT6H or PT10M; "
            "body.feedback.since: write a time as 2026-11-23T19:00:00Z",
        ),
        ("POST", "/train", {"model": "mnist", "feedback": {"since": 123}}, "write a time as 2026-11-23T19:00:00Z"),
    ],
)
def test_an_error_says_what_to_write(client: TestClient, method: str, path: str, body: Any, words: str) -> None:
    answer = client.request(method, path, json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_a_text_with_a_line_end_does_not_have_the_form(client: TestClient) -> None:
    answer = client.put("/models/mnist/retrain", json={"every": "P7D\n"})
    assert answer.status_code == 422
