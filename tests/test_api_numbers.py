"""Whole numbers in JSON bodies are JSON integers, on every route; unknown fields are told from known ones."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.execution.recipes import RecipeSchema
from tests.fakes import LINE, save_line
from tests.openinference import row
from tests.serving import serving

RECIPE = RecipeSchema(
    hyperparameters={
        "properties": {
            "epochs": {"type": "integer", "minimum": 1, "maximum": 100, "default": 1},
            "limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
            "sizes": {"type": "array", "items": {"type": "integer"}, "default": [1]},
            "lr": {"type": "number", "default": 0.1},
            "slope": {"type": "integer", "default": 2},
        }
    },
    metric="mse",
    higher_is_better=False,
)
NOT_WHOLE = ["1.0", "1e0", "1E2", "10e-1", "true", "false", '"1"', '"3"', '""', "null", "[1]", "{}", "1.5", "-1.0"]


async def recipes() -> Mapping[str, RecipeSchema]:
    return {"line": RECIPE}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}, recipes) as client:
        yield client


def post(client: TestClient, path: str, body: str, **params: str) -> Any:
    return client.post(path, content=body, params=params, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("number", NOT_WHOLE)
@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/models/line/promote", '{"version": HERE}', "version"),
        ("/train", '{"model": "line", "config": {"epochs": HERE}}', "epochs"),
        ("/train", '{"model": "line", "config": {"sizes": [3, HERE]}}', "sizes"),
    ],
    ids=["promote", "train", "train, in a list"],
)
def test_a_whole_number_is_a_json_integer(client: TestClient, path: str, body: str, name: str, number: str) -> None:
    response = post(client, path, body.replace("HERE", number))
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert name in response.json()["detail"]
    if number == "1.0":
        assert "without a point" in response.json()["detail"]


@pytest.mark.parametrize("number", [number for number in NOT_WHOLE if number != "null"])
def test_a_whole_number_that_may_be_missing_is_one_too(client: TestClient, number: str) -> None:
    assert (
        post(client, "/train", '{"model": "line", "config": {"limit": HERE}}'.replace("HERE", number)).status_code
        == 422
    )


@pytest.mark.parametrize("number", ["true", '"0.5"', '"3"', "[0.5]"])
def test_any_number_is_a_json_number(client: TestClient, number: str) -> None:
    response = post(client, "/train", '{"model": "line", "config": {"lr": HERE}}'.replace("HERE", number))
    assert (response.status_code, "lr" in response.json()["detail"]) == (422, True)


@pytest.mark.parametrize("config", ['{"epochs": 2, "lr": 1}', '{"limit": null}', '{"sizes": [1, 2], "lr": 1e-3}'])
def test_numbers_that_are_right_are_taken(client: TestClient, config: str) -> None:
    response = post(client, "/train", '{"model": "line", "config": HERE}'.replace("HERE", config))
    assert response.status_code == 202, response.text
    assert json.loads(config).items() <= response.json()["config"].items()


@pytest.mark.parametrize("number", ["2.0", "true", '"2"'])
def test_constructor_arguments_follow_the_same_rule(client: TestClient, number: str) -> None:
    response = client.post(
        "/models/line/versions", content=b"x", params={"arguments": '{"slope": HERE}'.replace("HERE", number)}
    )
    assert response.status_code == 422
    assert "arguments: slope" in response.json()["detail"]


@pytest.mark.parametrize("tensorboard", ["1", "0", '"true"', "null", "1.0"])
def test_true_and_false_are_json_booleans(client: TestClient, tensorboard: str) -> None:
    response = post(client, "/train", '{"model": "line", "tensorboard": HERE}'.replace("HERE", tensorboard))
    assert (response.status_code, "tensorboard" in response.json()["detail"]) == (422, True)


V2: dict[str, dict[str, Any]] = {
    "timeout": {"inputs": [row(3)], "parameters": {"timeout": ...}},
    "priority": {"inputs": [row(3)], "parameters": {"priority": ...}},
    "classification": {"inputs": [row(3)], "outputs": [{"name": "output", "parameters": {"classification": ...}}]},
    "binary_data_size": {"inputs": [{**row(3), "parameters": {"binary_data_size": ...}}]},
    "shape": {"inputs": [{**row(3), "shape": [1, ...]}]},
}


@pytest.mark.parametrize("number", ["1.0", "true", '"1"', "1e0"])
@pytest.mark.parametrize("kind", V2)
def test_whole_numbers_of_the_open_inference_protocol_are_json_integers(
    client: TestClient, kind: str, number: str
) -> None:
    body = json.dumps(V2[kind], default=lambda _: "HERE").replace('"HERE"', number)
    response = post(client, "/v2/models/line/infer", body)
    assert response.status_code == 400  # the protocol has no 422
    assert "error" in response.json()


@pytest.mark.parametrize("name", ["ready", "unload_dependents"])
@pytest.mark.parametrize("value", ["1", "0", '"true"', "1.0"])
def test_booleans_of_the_open_inference_protocol_are_json_booleans(client: TestClient, name: str, value: str) -> None:
    path = "/v2/repository/index" if name == "ready" else "/v2/repository/models/line/unload"
    body = '{"ready": HERE}' if name == "ready" else '{"parameters": {"unload_dependents": HERE}}'
    response = post(client, path, body.replace("HERE", value))
    assert (response.status_code, "true or false" in response.json()["error"]) == (400, True)


@pytest.mark.parametrize("number", ["1.0", "+1", "01", "1_0", " 1", "1 ", "1e1", "true", ""])
@pytest.mark.parametrize(
    "path", ["/jobs?limit=", "/models/line/versions?limit=", "/models/line/versions?before=", "/models/line/versions/"]
)
def test_whole_numbers_in_addresses_are_digits(client: TestClient, path: str, number: str) -> None:
    if path.endswith("/") and not number:
        return
    response = client.get(path + number.replace("+", "%2B").replace(" ", "%20"))
    assert response.status_code == 422
    assert client.get(f"{path}1").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "/train",
            {"modell": "line"},
            ["modell is not a field; did you mean model? the fields are model, config"],
        ),
        ("/train", {"model": "line", "confg": {}}, ["confg is not a field; did you mean config?"]),
        ("/train", {"model": "line", "epochs": 3}, ["epochs is not a field; the fields are model, config"]),
        ("/train", {"model": "line", "x" * 500: 3}, ["x" * 120 + "... is not a field"]),
        (
            "/train",
            {"model": "line", "config": {"epoch": 3}},
            ["epoch: unknown hyperparameter; did you mean epochs?"],
        ),
        (
            "/models/line/promote",
            {"verison": 1},
            ["verison is not a field; did you mean version?"],
        ),
        ("/models/line/promote", {}, ["version: Field required"]),
    ],
    ids=["model", "config", "a hyperparameter at the top", "a long name", "a hyperparameter", "version", "none"],
)
def test_a_misspelt_field_names_those_that_are_known(
    client: TestClient, path: str, body: dict[str, Any], words: list[str]
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert all(part in response.json()["detail"] for part in words), response.json()["detail"]
    assert "Value error" not in response.text
    assert len(response.content) < 1000
