"""POST /explain for models with named inputs and outputs, of any length."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor, nn

from models.attribution import NoGradient, attribute
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.coding import Coder, example_samples
from models.errors import InvalidInput
from models.gradients import may_be_explained, without_gradient
from models.outputs import Value, describe_values, saliency, values
from models.samples import Columns
from models.signature import Category, Number, Output, Picture
from models.signature import Tensor as TensorInput
from models.spec import ModelSpec
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import no_recipes, serving
from tests.signatures import SIGNATURES, save

EXPLAINED = ["denoiser", "heads", "series", "siamese", "table", "tagger", "unpadded"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("pretrained")
    for name in SIGNATURES:
        save(folder, name)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with serving(folder, SIGNATURES, recipes=no_recipes) as client:
        yield client


def loaded(folder: Path, name: str) -> Any:
    return state_dict.load(name, SIGNATURES[name], folder / f"{name}.pt")[0]


def explained(client: TestClient, path: str, inputs: list[Any]) -> dict[str, Any]:
    response = client.post(f"/explain/{path}", json={"inputs": inputs})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.slow
def test_the_gradient_of_each_number_of_mixed_columns(client: TestClient, folder: Path) -> None:
    row = {"age": 22.0, "sex": "male", "fare": 50.0}
    body = explained(client, "table", [row, {**row, "fare": None}, {**row, "age": 500}])
    weights = loaded(folder, "table").out.weight.detach()[0].numpy()
    first, missing, bad = body["explanations"]
    assert first["gradient"] == {"age": pytest.approx(weights[0] / 100), "fare": pytest.approx(weights[1] / 100)}
    assert missing["gradient"] == {"age": pytest.approx(weights[0] / 100), "fare": 0}
    assert bad["error"]["detail"].startswith("age: 500 is not")
    assert body["no_gradient"] == {"sex": "a category has no gradient"}
    assert "output" not in body
    predictions = client.post("/predict/table", json={"inputs": [row]}).json()["predictions"]
    assert first["value"] == pytest.approx(predictions[0]["value"], abs=1e-5)


@pytest.mark.slow
def test_integrated_gradients_of_mixed_columns_add_up(client: TestClient, folder: Path) -> None:
    row = {"age": 22.0, "sex": "male", "fare": 50.0}
    known, missing = explained(
        client, "table?method=integrated_gradients", [row, {**row, "fare": None}]
    )["explanations"]  # fmt: skip
    weights = loaded(folder, "table").out.weight.detach()[0].numpy()
    assert known["attribution"]["age"] == pytest.approx(22 * weights[0] / 100, rel=1e-3)
    assert known["attribution"]["fare"] == pytest.approx(50 * weights[1] / 100, rel=1e-3)
    assert missing["attribution"]["fare"] == 0


def test_a_model_of_texts_alone_says_that_they_have_no_gradient(client: TestClient) -> None:
    response = client.post("/explain/text", json={"inputs": ["good film"]})
    assert is_problem(response, 422, "text cannot be explained: review: a text has no gradient")
    assert not may_be_explained(SIGNATURES["text"])


@pytest.mark.many
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
@pytest.mark.parametrize("name", EXPLAINED)
def test_attributions_have_the_form_of_each_sample_alone_and_in_company(
    client: TestClient, name: str, method: str
) -> None:
    inputs = client.get(f"/models/{name}/example").json()["inputs"]
    inputs = [*inputs, *inputs, *reversed(inputs)]
    together = explained(client, f"{name}?method={method}", inputs)
    schema = client.get("/openapi.json").json()["paths"][f"/explain/{name}"]["post"]["responses"]["200"]["content"]
    jsonschema.validate(together, schema["application/json"]["schema"])
    for sample, entry in zip(inputs, together["explanations"], strict=True):
        (alone,) = explained(client, f"{name}?method={method}", [sample])["explanations"]
        arrays = entry["gradient" if method == "gradient" else "attribution"]
        alone_arrays = alone["gradient" if method == "gradient" else "attribution"]
        assert arrays.keys() == alone_arrays.keys() == SIGNATURES[name].inputs.keys() - together["no_gradient"].keys()
        for key, array in arrays.items():
            np.testing.assert_allclose(array, alone_arrays[key], rtol=1e-3, atol=1e-5)
            is_picture = isinstance(SIGNATURES[name].inputs[key], Picture)
            assert np.shape(array) == ((8, 8) if is_picture else np.shape(sample[key]))


def test_the_gradient_of_a_series_is_that_of_its_real_steps(client: TestClient, folder: Path) -> None:
    body = explained(client, "tagger", [{"steps": [1.0]}, {"steps": [1.0, 2.0, 3.0]}])
    left, middle, right = loaded(folder, "tagger").convolution.weight.detach()[0, 0].tolist()
    one, three = (entry["gradient"]["steps"] for entry in body["explanations"])
    assert one == pytest.approx([middle], abs=1e-5)
    assert three == pytest.approx([middle + left, left + middle + right, middle + right], abs=1e-5)
    assert body["output"] == "tags"


def test_the_output_that_is_explained(client: TestClient, folder: Path) -> None:
    network = loaded(folder, "heads")
    inputs = [{"samples": [1.0, 2.0, 3.0]}]
    default, kind, size = (explained(client, f"heads{query}", inputs) for query in ("", "?output=kind", "?output=size"))
    assert default == kind
    assert (kind["output"], size["output"]) == ("kind", "size")
    best = int(np.argmax(kind["explanations"][0]["kind"]))
    found = kind["explanations"][0]["gradient"]["samples"]
    assert found == pytest.approx(network.kind.weight[best].tolist())
    assert size["explanations"][0].keys() == {"size", "gradient"}
    assert size["explanations"][0]["gradient"]["samples"] == pytest.approx(network.size.weight[0].tolist())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("heads?output=colour", "heads has no output 'colour'; it has kind, size"),
        ("table?output=value", "table has no output 'value'; it has one, without a name"),
    ],
)
def test_an_output_that_is_not_there(client: TestClient, path: str, words: str) -> None:
    inputs = SIGNATURES[path.partition("?")[0]].example
    assert is_problem(client.post(f"/explain/{path}", json={"inputs": inputs}), 422, words)


def test_a_picture_has_the_gradient_of_its_pixels(client: TestClient) -> None:
    inputs = client.get("/models/denoiser/example").json()["inputs"]
    (entry,) = explained(client, "denoiser", inputs)["explanations"]
    assert np.array(entry["clean"]).shape == (8, 8)
    np.testing.assert_allclose(entry["gradient"]["picture"], np.full((8, 8), 0.5))


def test_the_api_description(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/explain/text" not in paths
    (output,) = (one for one in paths["/explain/heads"]["post"]["parameters"] if one["name"] == "output")
    assert output["schema"] == {"enum": ["kind", "size"], "default": "kind"}
    assert [one["name"] for one in paths["/explain/table"]["post"]["parameters"]] == ["method", "version"]


def test_one_tensor_with_a_named_output_is_explained_and_is_under_v2(tmp_path: Path) -> None:
    save_line(tmp_path)
    spec = replace(LINE, outputs={"y": Output((1,))}, postprocess=None, describe=None, prediction=None)
    with serving(tmp_path, {"line": spec}, recipes=no_recipes) as client:
        body = explained(client, "line?output=y", [[1], [2]])
        tensor = {"name": "input", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}
        answer = client.post("/v2/models/line/infer", json={"inputs": [tensor]}).json()
        metadata = client.get("/v2/models/line").json()
    explanations = [{"y": [3], "gradient": [2]}, {"y": [5], "gradient": [2]}]
    assert body == {"model": "line", "version": 1, "output": "y", "explanations": explanations}
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [3, 5]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}]


class Sum(nn.Module):
    """Sum of all that it gets."""

    def forward(self, **arrays: Tensor) -> Tensor:
        return torch.stack([array.float().reshape(len(array), -1).sum(1) for array in arrays.values()]).sum(0)[:, None]


def summed(encode: Any = None, network: type[nn.Module] = Sum, explain: Any = None) -> ModelSpec:
    return ModelSpec(
        summary="a sum",
        network=network,
        inputs={
            "age": Number(0, 120, default=30),
            "point": TensorInput((2,), low=-1, high=1, dtype=np.float64),
            "flags": TensorInput((2,), bool),
            "counts": TensorInput((2,), np.int64, low=0, high=9),
            "kind": Category(["a", "b"]),
        },
        encode=encode,
        postprocess=values,
        describe=describe_values,
        prediction=Value,
        example=[{"age": 1, "point": [0.5, 0.25], "flags": [True, False], "counts": [1, 2], "kind": "a"}],
        **({"explain": explain} if explain else {}),
    )


def unchanged(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sample[name] for name in ("age", "point", "flags", "counts")}


def faults(spec: ModelSpec) -> dict[str, str]:
    return without_gradient(spec, Coder(spec, {}))


def test_inputs_that_are_no_real_numbers_have_no_gradient() -> None:
    wanted = {
        "flags": "booleans have no gradient",
        "counts": "whole numbers have no gradient",
        "kind": "a category has no gradient",
    }
    assert faults(summed()) == faults(summed(unchanged)) == wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sample: {"age": sample["age"] / 100}, "`encode` changes it"),
        (lambda sample: {"age": int(sample["age"])}, "`encode` changes it"),
        (lambda sample: {"age": [sample["age"]]}, "`encode` changes it"),
        (lambda sample: {"years": sample["age"]}, "`encode` changes it"),
        (lambda sample: {"age": sample["age"], "square": sample["age"] ** 2}, "`encode` makes several arrays of it"),
    ],
    ids=["scaled", "rounded", "another shape", "another name", "used twice"],
)
def test_what_encode_changes_cannot_be_mapped_back_and_the_others_can(change: Any, words: str) -> None:
    def encode(sample: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in unchanged(sample).items() if name != "age"}
        return {**others, **change(sample)}

    found = faults(summed(encode))
    assert words in found["age"]
    assert "point" not in found


def test_an_encode_that_refuses_every_sample_leaves_nothing_to_map() -> None:
    def encode(_: Mapping[str, Any]) -> dict[str, Any]:
        raise InvalidInput("No words", "none")

    assert "`encode` changes it" in faults(summed(encode))["point"]


class Careless(Sum):
    """Does not use the age."""

    def forward(self, **arrays: Tensor) -> Tensor:
        del arrays["age"]
        return super().forward(**arrays)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_an_input_that_the_answer_does_not_depend_on_has_no_gradient(tmp_path: Path, method: str) -> None:
    spec = summed(network=Careless, explain=saliency)
    sha256 = state_dict.save_weights({}, tmp_path / "sum.pt")
    state_dict.save_record(Record(model="sum", sha256=sha256), tmp_path / "sum.pt")
    with serving(tmp_path, {"sum": spec}, recipes=no_recipes, backend="eager") as client:
        body = explained(client, f"sum?method={method}", [dict(spec.example[0])])
    assert body["no_gradient"]["age"] == "the answer has no gradient by it"
    assert body["explanations"][0].keys() == {"value", "saliency"}
    shares = {"gradient": [1, 1], "integrated_gradients": [1, 0.5]}
    assert body["explanations"][0]["saliency"] == {"point": pytest.approx(shares[method], rel=1e-3)}


class Rounding(nn.Module):
    """Has no gradient."""

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        return samples.round().long(), samples.detach()[:, 0]


def test_outputs_without_a_gradient_are_refused() -> None:
    spec = SIGNATURES["heads"]
    samples = example_samples(spec)
    assert isinstance(samples, Columns)
    for output in ("kind", "size"):
        with pytest.raises(NoGradient, match="cannot be differentiated"):
            attribute(spec, Rounding(), samples, "gradient", ["samples"], output)
