"""Lists of models stay small whatever the size of a sample: large examples have an address of their own."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from benchmarks import resnet
from service.client import Client, NotFound
from tests.fakes import LINE
from tests.serving import BASE_URL, no_recipes, over, serving

WIDE = replace(LINE, entry=replace(LINE.tensor, shape=(1025,)), example=np.zeros((1, 1025), np.float32))
SPECS = {"line": LINE, "wide": WIDE, "one": resnet.SPEC, "other": resnet.SPEC, **{f"m{i}": LINE for i in range(26)}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("none"), SPECS, no_recipes) as client:
        yield client


def test_thirty_models_of_which_two_take_large_pictures_are_described_in_50_kb(client: TestClient) -> None:
    response = client.get("/models")
    assert len(response.json()["models"]) == 30
    assert len(response.content) < 50_000


def test_the_openapi_schema_has_no_large_example(client: TestClient) -> None:
    response = client.get("/openapi.json")
    assert len(response.content) < 400_000
    bodies = {
        name: response.json()["paths"][f"/predict/{name}"]["post"]["requestBody"]["content"]["application/json"]
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
