"""Lists of models stay small: large examples, and schemas of many recipes, have addresses of their own."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from benchmarks import resnet
from service.client import Client, NotFound
from service.execution.recipes import RecipeSchema
from tests.fakes import LINE
from tests.serving import BASE_URL, over, serving

WIDE = replace(LINE, entry=replace(LINE.tensor, shape=(1025,)), example=np.zeros((1, 1025), np.float32))
SPECS = {"line": LINE, "wide": WIDE, "one": resnet.SPEC, "other": resnet.SPEC, **{f"m{i}": LINE for i in range(26)}}

EPOCHS = {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1, "description": "passes over the data"}
RECIPE = RecipeSchema(
    hyperparameters={"type": "object", "properties": {f"epochs{at}": EPOCHS for at in range(30)}},
    metric="mse",
    higher_is_better=False,
)


async def many_recipes() -> Mapping[str, RecipeSchema]:
    """A recipe for each model but one."""
    return {name: RECIPE for name in SPECS if name != "wide"}


async def few_recipes() -> Mapping[str, RecipeSchema]:
    """Recipes of three models."""
    return dict.fromkeys(("line", "one", "other"), RECIPE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("none"), SPECS, many_recipes) as client:
        yield client


def test_thirty_models_of_which_two_take_large_pictures_are_described_in_50_kb(client: TestClient) -> None:
    response = client.get("/models")
    assert len(response.json()["models"]) == 30
    assert len(response.content) < 50_000


def test_schemas_of_many_recipes_are_referred_to(client: TestClient) -> None:
    listed = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert listed["one"]["hyperparameters"] == {"$ref": "models/one#/hyperparameters"}
    assert listed["one"]["metric"] == "mse"
    assert listed["wide"]["hyperparameters"] is None
    address, _, place = listed["one"]["hyperparameters"]["$ref"].partition("#/")
    found = client.get(client.base_url.join("/models").join(address)).json()
    assert found[place] == RECIPE.hyperparameters
    with Client(BASE_URL, transport=over(client)) as reader:
        assert reader.model("m3")["hyperparameters"] == RECIPE.hyperparameters


def test_schemas_of_a_few_recipes_are_in_the_list(tmp_path: Path) -> None:
    with serving(tmp_path, SPECS, few_recipes) as client:
        listed = {model["name"]: model["hyperparameters"] for model in client.get("/models").json()["models"]}
    assert listed["one"] == RECIPE.hyperparameters
    assert listed["m3"] is None


def test_thirty_models_with_examples_of_medium_size_are_described_in_50_kb(tmp_path: Path) -> None:
    medium = replace(LINE, entry=replace(LINE.tensor, shape=(1000,)), example=np.zeros((1, 1000), np.float32))
    specs = {"line": LINE, **{f"m{i}": medium for i in range(29)}}
    with serving(tmp_path, specs, few_recipes) as client:
        response = client.get("/models")
        whole = client.get("/models/m3/example").json()
    found = {model["name"]: model for model in response.json()["models"]}
    assert len(response.content) < 50_000
    assert found["line"]["example"] == {"inputs": [[3]]}
    assert found["line"]["hyperparameters"] == {"$ref": "models/line#/hyperparameters"}
    assert found["m3"]["example"] is None
    assert whole == {"inputs": [[0] * 1000]}


def test_errors_are_described_once_for_all_operations(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    refusal = document["paths"]["/predict/line"]["post"]["responses"]["429"]
    assert refusal == {"$ref": "#/components/responses/Problem429"}
    described = document["components"]["responses"]["Problem429"]
    assert described["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_the_openapi_schema_has_no_large_example(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    sizes = {
        model: len(json.dumps([paths[path] for path in paths if path.endswith(f"/{model}")]))
        for model in ("line", "wide", "one")
    }
    assert max(sizes.values()) < 10_000, sizes
    bodies = {
        name: paths[f"/predict/{name}"]["post"]["requestBody"]["content"]["application/json"]
        for name in ("line", "one")
    }
    assert bodies["line"]["example"] == {"inputs": [[3]]}
    assert "example" not in bodies["one"]
    assert bodies["one"]["schema"]["required"] == ["inputs"]


def test_a_small_example_is_in_the_list_and_a_large_one_at_its_address(client: TestClient) -> None:
    found = {model["name"]: model["example"] for model in client.get("/models").json()["models"]}
    assert found["line"] == client.get("/models/line/example").json() == {"inputs": [[3]]}
    assert found["wide"] is found["one"] is None
    assert client.get("/models/one").json()["example"] is None
    assert client.get("/models/wide/example").json() == {"inputs": [[0] * 1025]}
    assert np.array(client.get("/models/one/example").json()["inputs"]).shape == resnet.SPEC.example.shape


def test_an_unknown_model_has_no_example(client: TestClient) -> None:
    assert client.get("/models/nothing/example").status_code == 404


def test_the_client_returns_an_example_of_any_size(client: TestClient) -> None:
    with Client(BASE_URL, transport=over(client)) as reader:
        assert reader.example("line") == {"inputs": [[3]]}
        assert np.array_equal(reader.example("one")["inputs"], resnet.SPEC.example)
        with pytest.raises(NotFound):
            reader.example("nothing")
