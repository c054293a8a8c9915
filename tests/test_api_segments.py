"""`?segment=true` answers each digit in one picture; other values, bodies and models are refused."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.mnist import SPEC, drawn_seven
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import png, serving
from tests.written_pages import number

SEVEN = drawn_seven()
PNG = {"content-type": "image/png"}
ROUTE = "/predict/mnist?segment=true"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(specs={"mnist": SPEC}) as client:
        yield client


def page(count: int) -> bytes:
    file = io.BytesIO()
    number([SEVEN] * count)[0].save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("query", ["segment=true", "segment=true&version=1"])
def test_each_digit_of_a_picture_is_answered_with_its_box(client: TestClient, query: str) -> None:
    response = client.post(f"/predict/mnist?{query}", content=page(3), headers=PNG)
    found = response.json()["predictions"]
    assert [one["label"] for one in found] == [7, 7, 7]
    for one, box in zip(found, number([SEVEN] * 3)[1], strict=True):
        assert one["box"] == pytest.approx(box, abs=3)
    assert response.headers["x-model-version"] == "1"


def test_several_digits_without_the_parameter_are_refused_with_their_boxes(client: TestClient) -> None:
    for query in ("", "?segment=false"):
        response = client.post(f"/predict/mnist{query}", content=page(4), headers=PNG)
        assert is_problem(response, 422, "Several digits")
        assert response.json()["detail"].startswith("this looks like 4 digits: send one of the boxes")


def test_arrays_are_answered_without_boxes(client: TestClient) -> None:
    response = client.post(ROUTE, content=page(2), headers={**PNG, "accept": "application/x-npy"})
    assert np.load(io.BytesIO(response.content)).shape == (2, 10)


def test_a_picture_without_a_digit_is_refused(client: TestClient) -> None:
    response = client.post(ROUTE, content=png(np.full((200, 200), 255, np.uint8)), headers=PNG)
    assert is_problem(response, 422, "No ink found")


@pytest.mark.parametrize("value", ["yes", "True", "1", ""])
def test_other_values_are_refused(client: TestClient, value: str) -> None:
    response = client.post(f"/predict/mnist?segment={value}", content=page(1), headers=PNG)
    assert is_problem(response, 422, "Invalid request")
    assert "segment must be true or false" in response.json()["detail"]


def test_a_repeated_value_is_refused(client: TestClient) -> None:
    response = client.post("/predict/mnist?segment=true&segment=true", content=page(1), headers=PNG)
    assert is_problem(response, 422, "Invalid request")
    assert "segment is given 2 times; give it once" in response.json()["detail"]


def test_bodies_that_are_not_one_picture_are_refused(client: TestClient) -> None:
    form = client.post(ROUTE, files={"f": page(2)})
    numbers = client.post(ROUTE, json={"inputs": [SEVEN.tolist()]})
    for response in (form, numbers):
        assert is_problem(response, 422, "Invalid request")
        assert "send the bytes of its file" in response.json()["detail"]


def test_models_without_segments_refuse_the_parameter(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("line")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        response = client.post("/predict/line?segment=true", json={"inputs": [[1.0]]})
        assert is_problem(response, 422, "Invalid request")
        assert "leave out segment" in response.json()["detail"]


def test_the_parameter_is_documented_for_models_that_have_segments(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    names = [parameter["name"] for parameter in paths["/predict/mnist"]["post"]["parameters"]]
    assert names == ["version", "segment"]
    assert "segment" not in [parameter["name"] for parameter in paths["/explain/mnist"]["post"]["parameters"]]
