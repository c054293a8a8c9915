"""tritonclient against a server with models of named inputs."""

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from models.spec import Array
from service.api.openinference.tensors import datatype_of
from service.app import create_app
from service.settings import Settings
from tests.fakes import InProcess
from tests.serving import no_recipes
from tests.signatures import SIGNATURES, save, spot
from tests.sockets import listening
from tests.templates import migrated

NAMES = ("table", "text", "tagger", "heads", "denoiser")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("pretrained")
    models = {name: SIGNATURES[name] for name in NAMES}
    for name in models:
        save(folder, name)
    settings = Settings(store=migrated(folder / "store"))
    app = create_app(settings, models, folder, no_recipes, partial(InProcess, models))
    with listening(app) as ((host, port), _):
        yield f"{host}:{port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(address)
    yield client
    client.close()


def given(arrays: Mapping[str, Array], *, binary: bool = True) -> list[Any]:
    """The inputs of a request."""
    items = []
    for name, array in arrays.items():
        item = triton.InferInput(name, list(array.shape), datatype_of(array.dtype))
        items.append(item.set_data_from_numpy(array, binary_data=binary))
    return items


def objects(*values: Any) -> Array:
    return np.array(values, dtype=object)


def predicted(address: str, name: str, samples: list[Any]) -> list[dict[str, Any]]:
    body = {"inputs": samples}
    predictions: list[dict[str, Any]] = httpx.post(f"http://{address}/predict/{name}", json=body).json()["predictions"]
    return predictions


@pytest.mark.many
@pytest.mark.parametrize("binary", [True, False])
def test_mixed_columns(address: str, client: triton.InferenceServerClient, binary: bool) -> None:
    columns = {"age": np.array([22, 38], np.float32), "sex": objects("male", "female")}
    found = client.infer("table", given(columns, binary=binary)).as_numpy("output")
    wanted = predicted(address, "table", [{"age": 22, "sex": "male"}, {"age": 38, "sex": "female"}])
    np.testing.assert_allclose(found[:, 0], [one["value"] for one in wanted], rtol=1e-5)
    fares = {**columns, "fare": np.array([np.nan, 71.25])}
    some = client.infer("table", given(fares)).as_numpy("output")
    assert (some[0], some[1] != found[1]) == (pytest.approx(found[0]), True)


@pytest.mark.parametrize("binary", [True, False])
def test_texts_and_their_classes(address: str, client: triton.InferenceServerClient, binary: bool) -> None:
    texts = ["good film", "not a good film at all"]
    inputs = given({"review": objects(*texts)}, binary=binary)
    found = client.infer("text", inputs).as_numpy("output")
    labels = np.array(["negative", "positive"])[found.argmax(axis=1)]
    assert labels.tolist() == [one["label"] for one in predicted(address, "text", texts)]


def test_pictures_in_and_out(client: triton.InferenceServerClient) -> None:
    file = io.BytesIO()
    spot(100).save(file, "PNG")
    clean = client.infer("denoiser", given({"picture": objects(file.getvalue())})).as_numpy("clean")
    pixels = client.infer("denoiser", given({"picture": np.asarray(spot(100))[None]})).as_numpy("clean")
    assert (clean.dtype, clean.shape) == (np.uint8, (1, 8, 8))
    np.testing.assert_array_equal(clean, pixels)


def test_named_outputs_and_their_labels(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("heads")
    assert [output["name"] for output in metadata["outputs"]] == ["kind", "size"]
    inputs = given({"samples": np.array([[1, 2, 3], [0, -1, 0.5]], np.float32)})
    both = client.infer("heads", inputs)
    assert (both.as_numpy("kind").shape, both.as_numpy("size").shape) == ((2, 2), (2,))
    best = client.infer("heads", inputs, outputs=[triton.InferRequestedOutput("kind", class_count=1)])
    names = [item.decode().split(":")[2] for item in best.as_numpy("kind").ravel()]
    assert names == [["cat", "dog"][row.argmax()] for row in both.as_numpy("kind")]
    assert best.as_numpy("size") is None


def test_series_of_any_length(address: str, client: triton.InferenceServerClient) -> None:
    for length in (1, 5):
        steps = np.linspace(-1, 1, 2 * length, dtype=np.float32).reshape(2, length)
        tags = client.infer("tagger", given({"steps": steps})).as_numpy("tags")
        wanted = predicted(address, "tagger", [{"steps": row} for row in steps.tolist()])
        np.testing.assert_allclose(tags, [one["tags"] for one in wanted], rtol=1e-4, atol=1e-5)


def test_the_client_shows_which_value_of_which_sample_is_wrong(client: triton.InferenceServerClient) -> None:
    columns = {"age": np.array([22, 38], np.float32), "sex": objects("male", "femal")}
    with pytest.raises(InferenceServerException, match="sample 1: sex: 'femal' is none of") as caught:
        client.infer("table", given(columns))
    assert caught.value.status() == "400"
