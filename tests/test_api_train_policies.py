"""Policies of promotion in POST /train: words, and words with bounds."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.fakes import LINE, save_line
from tests.serving import serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    shipped = tmp_path_factory.mktemp("shipped")
    save_line(shipped)
    with serving(shipped, {"line": LINE}) as client:
        yield client


def train(client: TestClient, promote: Any, **headers: str) -> Any:
    return client.post("/train", json={"model": "line", "promote": promote}, headers=headers)


@pytest.mark.parametrize(
    ("promote", "answered"),
    [
        ("never", "never"),
        ("no_worse", "no_worse"),
        ({"if_better": {}}, {"if_better": {"alpha": 0.05, "margin": None}}),
        ({"if_better": {"alpha": 0.01, "margin": 0.002}}, {"if_better": {"alpha": 0.01, "margin": 0.002}}),
        ({"no_worse": {"margin": 0}}, {"no_worse": {"alpha": 0.05, "margin": 0.0}}),
    ],
    ids=["never", "no-worse", "defaults", "bounds", "no-margin"],
)
def test_a_job_answers_its_policy_with_all_bounds(client: TestClient, promote: Any, answered: Any) -> None:
    response = train(client, promote)
    assert response.status_code == 202, response.text
    assert response.json()["promote"] == answered
    assert client.get(response.headers["location"]).json()["promote"] == answered


@pytest.mark.parametrize(
    ("promote", "words"),
    [
        ("surely", "promote"),
        (None, "promote"),
        ([], "promote"),
        (1, "promote"),
        ({}, "if_better"),
        ({"always": {}}, "always is not a field"),
        ({"if_better": {}, "no_worse": {}}, "if_better is not a field"),
        ({"if_better": {"alhpa": 0.1}}, "did you mean alpha?"),
        ({"if_better": {"alpha": 0}}, "greater than 0"),
        ({"if_better": {"alpha": 0.6}}, "less than or equal to 0.5"),
        ({"no_worse": {"margin": -0.1}}, "greater than or equal to 0"),
        ({"no_worse": {"margin": "much"}}, "margin"),
        ({"no_worse": {"margin": "0.1"}}, "margin"),
        ({"no_worse": {"margin": False}}, "margin"),
        ({"if_better": {"alpha": True}}, "alpha"),
        ({"no_worse": 0.1}, "no_worse"),
    ],
    ids=str,
)
def test_a_bad_policy_names_what_is_wrong(client: TestClient, promote: Any, words: str) -> None:
    response = train(client, promote)
    assert response.status_code == 422
    assert words in response.json()["detail"]


def test_the_bounds_belong_to_the_order_of_an_idempotency_key(client: TestClient) -> None:
    key = {"Idempotency-Key": "bounds"}
    first = train(client, {"if_better": {"alpha": 0.01}}, **key)
    assert train(client, {"if_better": {"alpha": 0.01}}, **key).json()["id"] == first.json()["id"]
    for other in ("if_better", {"if_better": {"alpha": 0.02}}):
        assert train(client, other, **key).status_code == 422
