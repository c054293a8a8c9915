"""POST /models/{model}/versions with files of every dtype, layout and form: 201 or a 422 that names the tensor."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import safetensors.torch
import torch
from starlette.testclient import TestClient

from models.catalog import specs
from models.messages import Failed, FailureKind, Order
from service.execution.recipes import RecipeSchema
from tests.checkpoint_files import LAYOUTS, QUANTISED, as_layout, bomb, dtypes, saved, with_pickle
from tests.fakes import InProcess
from tests.hostile import INSIDE
from tests.serving import serving

KEY = "layers.0.weight"
ADDRESS = "/models/regressor/versions"
RECIPE = RecipeSchema(
    hyperparameters={
        "properties": {
            "hidden": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10},
            "activation": {"type": "string", "enum": ["relu", "tanh"], "default": "relu"},
        }
    },
    metric="mse",
    higher_is_better=False,
)


async def recipes() -> Mapping[str, RecipeSchema]:
    return {"regressor": RECIPE}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("none"), {"regressor": specs()["regressor"]}, recipes) as client:
        yield client


def state(**arguments: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return specs()["regressor"].network(**arguments).state_dict()


def upload(client: TestClient, content: bytes, **arguments: Any) -> Any:
    return client.post(ADDRESS, content=content, params={"arguments": json.dumps(arguments)} if arguments else {})


def refusal(client: TestClient, content: bytes, **arguments: Any) -> str:
    """The detail of a 422; no other answer will do, and nothing is registered."""
    before = len(client.get(ADDRESS).json()["versions"])
    response = upload(client, content, **arguments)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json"), response.text
    assert not INSIDE.search(response.text)
    assert len(client.get(ADDRESS).json()["versions"]) == before
    return str(response.json()["detail"])


def in_form(tensors: dict[str, torch.Tensor], form: str) -> bytes:
    if form == "safetensors":
        return safetensors.torch.save({key: tensor.contiguous() for key, tensor in tensors.items()})
    return saved(tensors)


@pytest.mark.many
@pytest.mark.parametrize("form", ["torch", "safetensors"])
@pytest.mark.parametrize("dtype", dtypes(), ids=str)
def test_a_dtype_is_converted_and_said_or_a_422_that_names_it(
    client: TestClient, dtype: torch.dtype, form: str
) -> None:
    try:
        content = in_form({**state(), KEY: state()[KEY].to(dtype)}, form)
    except (KeyError, RuntimeError, ValueError):
        pytest.skip("safetensors does not write this dtype")
    name = str(dtype).removeprefix("torch.")
    if dtype in {torch.float16, torch.bfloat16, torch.float32, torch.float64}:
        answer = upload(client, content)
        assert answer.status_code == 201, answer.text
        version = answer.json()
        assert version["notes"] == ([] if name == "float32" else [f"{name} cast to float32: 1 tensor"])
        assert client.get(f"{ADDRESS}/{version['version']}").json()["notes"] == version["notes"]
    elif form == "safetensors" and name == "float8_e8m0fnu":  # written by safetensors, but not read
        assert f"{KEY} (F8_E8M0)" in refusal(client, content)
    else:
        assert f"{KEY} is {name} instead of float32" in refusal(client, content)


@pytest.mark.parametrize("layout", ["meta", "nested", "per_channel", *LAYOUTS, *QUANTISED])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_layout_is_a_422_that_names_the_tensor(client: TestClient, layout: str) -> None:
    detail = refusal(client, saved({**state(), KEY: as_layout(state()[KEY], layout)}))
    assert KEY in detail
    assert layout in detail or "quantised" in detail
    assert "save" in detail or "load the weights" in detail


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "network."])
def test_a_prefix_is_removed_and_said(client: TestClient, prefix: str) -> None:
    version = upload(client, saved({prefix + key: tensor for key, tensor in state().items()})).json()
    assert version["notes"] == [f"prefix {prefix} removed from the keys"]


def test_the_only_state_dict_of_a_file_is_taken_and_said(client: TestClient) -> None:
    version = upload(client, saved({"state_dict": state(), "epoch": 1})).json()
    assert version["notes"] == ["weights read from the entry state_dict"]


HUGE = [{"hidden": 2**31}, {"hidden": 10**30}, {"hidden": 1001}, {"hidden": 0}, {"hidden": True}, {"hidden": "10"}]


@pytest.mark.parametrize("arguments", [*HUGE, {"hidden": 1.5}, {"activation": "swish"}, {"hidden": [10]}], ids=str)
def test_arguments_beyond_the_bounds_of_the_recipe_are_refused_at_once(
    client: TestClient, arguments: dict[str, Any]
) -> None:
    (name,) = arguments
    assert refusal(client, saved(state()), **arguments).startswith(f"arguments: {name}: ")


@pytest.mark.parametrize(
    "text",
    ['{"hidden": NaN}', '{"hidden": 1e400}', '{"a": "\\ud800"}', "[]", "3", '"x"', "{", "", '{"hidden"}', "[" * 9999],
)
def test_arguments_that_are_no_json_object_are_refused(client: TestClient, text: str) -> None:
    response = client.post(ADDRESS, content=saved(state()), params={"arguments": text})
    assert response.status_code == 422
    assert "arguments" in response.json()["detail"]


@pytest.mark.parametrize(
    "query", ["arguments=%ED%A0%80", "arguments=%FF", "arguments=%00", "arguments={%22%ED%A0%80%22:1}"]
)
def test_a_query_that_is_not_utf8_is_refused(client: TestClient, query: str) -> None:
    response = client.post(f"{ADDRESS}?{query}", content=saved(state()))
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


def test_a_file_of_another_width_says_the_arguments_and_is_taken_with_them(client: TestClient) -> None:
    content = saved(state(hidden=20))
    assert 'It fits with these constructor arguments: ?arguments={"hidden": 20}' in refusal(client, content)
    assert upload(client, content, hidden=20).json()["arguments"] == {"hidden": 20}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(8), "unpacks to"),
        (with_pickle(b"\x80\x02cbuiltins\nbytearray\nK\x01\x85R."), "bytearray"),
        (saved({"\ud800": torch.ones(1)}), "\\ud800"),
        (saved({"state_dict": state(), "ema": state(), "epoch": 1}), "under state_dict or ema"),
        (saved(state(), _use_new_zipfile_serialization=False), "before PyTorch 1.6"),
        (b"", "it is empty"),
    ],
    ids=["bomb", "bytearray", "surrogate", "two state_dicts", "legacy", "empty"],
)  # fmt: skip
def test_a_file_that_is_no_state_dict_is_named(client: TestClient, content: bytes, words: str) -> None:
    assert words in refusal(client, content)


class Dying(InProcess):
    """A subprocess that dies of the check, as one does that runs out of memory."""

    def ask(self, order: Order[Any], timeout_s: float) -> Any:  # noqa: ARG002
        return None


class Failing(InProcess):
    """A subprocess with a defect."""

    def ask(self, order: Order[Any], timeout_s: float) -> Any:  # noqa: ARG002
        return Failed(kind=FailureKind.UNEXPECTED, title="Upload failed", detail="the check of the upload raised X")


@pytest.mark.parametrize(
    ("child", "status", "words"),
    [(Dying, 422, "ran out of memory"), (Failing, 500, "the check of the upload raised X")],
)
def test_an_upload_check_without_a_result_is_reported(
    tmp_path: Path, child: type[InProcess], status: int, words: str
) -> None:
    with serving(tmp_path, {"regressor": specs()["regressor"]}, recipes, child) as client:
        response = upload(client, saved(state()))
        assert response.status_code == status
        assert words in orjson.loads(response.content)["detail"]
