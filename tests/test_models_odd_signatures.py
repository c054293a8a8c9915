"""Signatures at their limits: two variable axes, thousands of categories, empty texts, pictures that may be absent."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor, nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.coding import Coder
from models.contract import fault_of
from models.outputs import Value, describe_values, values
from models.signature import Category, Input, Number, Output, Padded, Picture, Text
from models.signature import Tensor as TensorInput
from models.spec import ModelSpec
from service import check
from tests.picture_bytes import encoded
from tests.serving import no_recipes, serving
from tests.signatures import grey_8x8, spot

MANY = 10_000
GRID = TensorInput((None, None), low=-10, high=10, longest=200)
DEFAULT = np.zeros((8, 8), np.uint8)


class Mean(nn.Module):
    """The mean of a grid: float32 (N, H, W), bool (N, H, W) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, grid: Tensor, mask: Tensor) -> Tensor:
        mean: Tensor = (grid * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
        return mean[:, None] * self.scale


class Blur(nn.Module):
    """A grid for a grid: float32 (N, H, W) -> float32 (N, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        blurred: Tensor = self.convolution(grid[:, None])[:, 0]
        return blurred


class Items(nn.Module):
    """int64 (N,) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(MANY, 1)

    def forward(self, item: Tensor) -> Tensor:
        found: Tensor = self.embedding(item)
        return found


class Classes(nn.Module):
    """float32 (N, 2) -> float32 (N, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 1000)

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.out(samples)
        return logits


class Letters(nn.Module):
    """The mean of the letters: int64 (N, L), bool (N, L) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        mean: Tensor = (ids * mask).sum(dim=1) / mask.sum(dim=1)
        return mean[:, None] * self.scale


class Bright(nn.Module):
    """uint8 (N, 8, 8), float32 (N,) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, picture: Tensor, size: Tensor) -> Tensor:
        bright: Tensor = picture.float().flatten(1).mean(dim=1) / 255 * self.scale + size
        return bright[:, None]


def letters(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """An empty text is one letter 0."""
    return {"ids": [ord(letter) for letter in sample["text"]] or [0]}


def filled(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a black picture in the place of none."""
    return {**sample, "picture": DEFAULT if sample["picture"] is None else sample["picture"]}


def one_value(network: type[nn.Module], inputs: Mapping[str, Input], example: Any, **more: Any) -> ModelSpec:
    return ModelSpec(
        summary="a number", network=network, inputs=inputs, example=example,
        postprocess=values, describe=describe_values, prediction=Value, **more,
    )  # fmt: skip


GRIDS = [{"grid": [[1, 2], [3, 4]]}, {"grid": [[1, 2, 3]]}]
PICTURES = [{"picture": spot(90), "size": 0.5}, {"size": 0.25}]
SPECS = {
    "mean": one_value(Mean, {"grid": GRID}, GRIDS, padding={"grid": Padded(axes=(0, 1), mask="mask")}),
    "blur": ModelSpec(
        summary="a grid",
        network=Blur,
        inputs={"grid": GRID},
        padding={"grid": Padded(axes=(0, 1))},
        outputs={"blurred": Output((None, None), like="grid")},
        example=GRIDS,
    ),
    "unpadded": ModelSpec(
        summary="a grid",
        network=Blur,
        inputs={"grid": GRID},
        outputs={"blurred": Output((None, None))},
        example=GRIDS,
    ),
    "items": one_value(
        Items, {"item": Category([f"item {at}" for at in range(MANY)])}, [{"item": "item 3"}, {"item": "item 9999"}]
    ),
    "numbered": one_value(Items, {"item": Category(list(range(MANY)), default=7)}, [{"item": 3}, {"item": None}, {}]),
    "labelled": ModelSpec(
        summary="one of many classes",
        network=Classes,
        inputs={"samples": TensorInput((2,), low=-1, high=1)},
        outputs={"kind": Output((1000,), labels=[f"kind {at}" for at in range(1000)])},
        example=[{"samples": [0.5, 1]}],
    ),
    "letters": one_value(
        Letters,
        {"text": Text(max_chars=100, default="")},
        ["ab", {"text": ""}, {}],
        encode=letters,
        padding={"ids": Padded(mask="mask")},
    ),
    "standard": one_value(
        Bright, {"picture": Picture(grey_8x8, (8, 8), default=DEFAULT), "size": Number(0, 1)}, PICTURES
    ),
    "absent": one_value(
        Bright, {"picture": Picture(grey_8x8, (8, 8), default=None), "size": Number(0, 1)}, PICTURES, encode=filled
    ),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("pretrained")
    for name, spec in SPECS.items():
        torch.manual_seed(0)
        sha256 = state_dict.save_weights(spec.network().state_dict(), folder / f"{name}.pt")
        state_dict.save_record(Record(model=name, sha256=sha256), folder / f"{name}.pt")
    with serving(folder, SPECS, no_recipes) as client:
        yield client


def predictions(client: TestClient, name: str, inputs: Any) -> list[Any]:
    response = client.post(f"/predict/{name}", json={"inputs": inputs})
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["predictions"]
    return found


@pytest.mark.parametrize("name", SPECS)
def test_it_passes_the_contract(name: str) -> None:
    assert [fault for one in check.CHECKS if (fault := fault_of(one, name, SPECS[name]))] == []


@pytest.mark.many
@pytest.mark.parametrize("name", SPECS)
def test_it_is_served_by_every_route(name: str, client: TestClient) -> None:
    model = client.get(f"/models/{name}").json()
    assert (model["fault"], model["backend"]) == (None, "onnxruntime")
    example = client.get(f"/models/{name}/example").json()
    assert len(predictions(client, name, example["inputs"])) == len(example["inputs"])
    assert client.post(f"/preview/{name}", json=example).status_code == 200
    explained = client.post(f"/explain/{name}", json=example)
    if name in {"items", "numbered", "letters"}:
        assert explained.status_code == 422
        assert "has no gradient" in explained.json()["detail"]
    else:
        assert explained.status_code == 200, explained.text
        assert all("gradient" in one for one in explained.json()["explanations"])


def test_grids_of_any_shape_share_a_body(client: TestClient) -> None:
    grids: list[Any] = [[[1, 2], [3, 4]], [[0.5] * 150] * 3, [[1], [2], [3]]]
    found = predictions(client, "mean", [{"grid": grid} for grid in [*grids, [], [[]], [[1], [2, 3]], [[1] * 201]]])
    assert [one["value"] for one in found[:3]] == pytest.approx([5, 1, 4])
    assert [one["error"]["title"] for one in found[3:]] == [
        "Wrong shape",
        "Wrong length",
        "Wrong value",
        "Wrong length",
    ]
    for name in ("blur", "unpadded"):
        together = [one["blurred"] for one in predictions(client, name, [{"grid": grid} for grid in grids])]
        for grid, blurred in zip(grids, together, strict=True):
            (alone,) = predictions(client, name, [{"grid": grid}])
            assert np.shape(blurred) == np.shape(grid)
            np.testing.assert_allclose(blurred, alone["blurred"], atol=1e-6)


def test_one_of_thousands_of_categories_is_looked_up_and_an_unknown_one_named_in_a_line(client: TestClient) -> None:
    found = predictions(client, "items", [{"item": "item 9999"}, {"item": "item 10000"}])
    assert "value" in found[0]
    assert found[1]["error"]["detail"].endswith("'item 10', 'item 11' and 9988 more")
    first, standard, other = predictions(client, "numbered", [{"item": 7}, {}, {"item": 8}])
    assert first == standard != other


def test_lists_of_models_have_no_list_of_thousands(client: TestClient) -> None:
    response = client.get("/models")
    assert len(response.content) < 50_000
    models = {model["name"]: model for model in response.json()["models"]}
    assert {name for name, model in models.items() if model["shortened"]} == {"items", "numbered", "labelled"}
    said = "one of 10000 values; GET /models/{model} lists them"
    for name, kind in (("items", "string"), ("numbered", "integer")):
        (entry,) = models[name]["signature"]["inputs"]
        assert entry["values"] is None
        assert {"type": kind, "description": said} in (
            models[name]["body_schema"]["properties"]["inputs"]["items"]["properties"]["item"],
            *models[name]["body_schema"]["properties"]["inputs"]["items"]["properties"]["item"].get("anyOf", ()),
        )
        whole = client.get(f"/models/{name}").json()
        assert not whole["shortened"]
        assert len(whole["signature"]["inputs"][0]["values"]) == MANY
        assert "enum" in str(whole["body_schema"])
    assert models["labelled"]["signature"]["outputs"][0]["labels"] is None
    assert len(client.get("/models/labelled").json()["signature"]["outputs"][0]["labels"]) == 1000
    document = client.get("/openapi.json")
    assert len(document.content) < 200_000
    assert said in document.text


def test_an_empty_text_is_the_default(client: TestClient) -> None:
    found = predictions(client, "letters", ["", {}, {"text": None}, {"text": ""}, "a"])
    assert [one["value"] for one in found] == [0, 0, 0, 0, 2 * ord("a")]


@pytest.mark.parametrize("name", ["standard", "absent"])
def test_a_picture_may_be_absent(name: str, client: TestClient) -> None:
    file = encoded("PNG", np.full((8, 8), 255, np.uint8))
    white = base64.b64encode(file).decode()
    found = predictions(client, name, [{"size": 0.5}, {"picture": None, "size": 0.5}, {"picture": white, "size": 0.5}])
    assert [one["value"] for one in found] == [0.5, 0.5, 2.5]
    forms: list[Any] = [[("size", (None, "0.5"))], [("size", (None, "0.5")), ("picture", ("a.png", file))]]
    answers = [client.post(f"/predict/{name}", files=form).json()["predictions"] for form in forms]
    assert answers == [[{"value": 0.5}], [{"value": 2.5}]]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Picture(grey_8x8, (8, 8), default=None), "send the bytes of a picture"),
        (Picture(grey_8x8, (8, 8), default=np.zeros((8, 8))), "an array float64 [8, 8], the model takes uint8 [8, 8]"),
        (Category(["a", "b"], default="c"), "'c' is none of 'a', 'b'"),
        (Number(0, 1, default=2), "2 is not from 0 to 1"),
        (TensorInput((2,), default=None), "it must be float32 of shape [2]"),
        (TensorInput((), default=None), "it must be float32 of shape []"),
        (TensorInput((2,), default=[1, 2, 3]), "it must be float32 of shape [2]"),
        (TensorInput((2,), default=["a", "b"]), "it must be float32 of shape [2]"),
    ],
    ids=["no picture", "dtype", "category", "number", "no array", "no number", "shape", "texts"],
)
def test_a_default_that_is_no_value_is_refused_when_the_spec_is_made(kind: Any, words: str) -> None:
    inputs = {"picture": kind, "size": Number(0, 1)}
    with pytest.raises(ValueError, match="the default of the input picture: ") as caught:
        replace(SPECS["standard"], inputs=inputs, example=[{"size": 0}])
    assert words in str(caught.value)
    assert replace(SPECS["standard"], inputs=inputs, example=[{"size": 0}], encode=filled)  # it makes a value of it


def test_the_default_of_a_tensor_has_its_dtype() -> None:
    """The first sample fixes the dtypes of all others: whole numbers as a default would refuse fractions."""
    inputs = {"pair": TensorInput((2,), default=[0, 0]), "flags": TensorInput((1,), bool, default=[True])}
    spec = replace(SPECS["standard"], inputs=inputs, example=[{}])
    coder = Coder(spec, {})
    assert {name: array.dtype.name for name, array in coder({}).items()} == {"pair": "float32", "flags": "bool"}
    assert coder({"pair": [0.5, 0.25]})["pair"].tolist() == [0.5, 0.25]
    nan = replace(spec, inputs={"pair": TensorInput((2,), default=[np.nan, np.nan])})
    assert np.isnan(Coder(nan, {})({})["pair"]).all()
