"""tritonclient against a running service, for every model."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.catalog import specs
from models.spec import Array, ModelSpec
from service.api.openinference.tensors import datatype_of
from tests.fakes import running_server, shipped_specs
from tests.openinference import SEVEN

pytestmark = pytest.mark.slow

SPECS = list(shipped_specs().items())
each_model = pytest.mark.parametrize(("name", "spec"), SPECS, ids=[name for name, _ in SPECS])
each_coding = pytest.mark.parametrize("coding", [None, "gzip", "deflate"])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_FORM": "fp32"}) as url:  # its answers are compared to the sixth digit
        yield url


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    yield client
    client.close()


def given(
    array: Array, *, binary: bool = True, module: Any = triton, name: str = "input", shape: Sequence[int] | None = None
) -> list[Any]:
    """The inputs of a request; `shape` is announced in place of the array's."""
    datatype = "BYTES" if array.dtype == object else datatype_of(array.dtype)
    item = module.InferInput(name, list(array.shape), datatype)
    item.set_data_from_numpy(array, binary_data=binary)
    return [item if shape is None else item.set_shape(shape)]


def wanted(*, binary: bool = True, classes: int = 0, name: str = "output", module: Any = triton) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary, class_count=classes)]


def refused(client: triton.InferenceServerClient, inputs: list[Any], **arguments: Any) -> tuple[str, str]:
    """Status and message of the error that the client raises."""
    with pytest.raises(InferenceServerException) as caught:
        client.infer(arguments.pop("model", "mnist"), inputs, **arguments)
    return caught.value.status(), caught.value.message()


def predicted(url: str, name: str, spec: ModelSpec) -> Array:
    """Return the values (N, k) that /predict gives for the model's example."""
    headers = {"accept": "application/x-npy"}
    answer = httpx.post(f"{url}/predict/{name}", json={"inputs": spec.example.tolist()}, headers=headers)
    values: Array = np.load(io.BytesIO(answer.content))
    return values


def test_the_server_describes_itself(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]


@each_model
def test_a_model_describes_itself(client: triton.InferenceServerClient, name: str, spec: ModelSpec) -> None:
    metadata, config = client.get_model_metadata(name), client.get_model_config(name, "1")
    (entry,), (output,) = metadata["inputs"], metadata["outputs"]
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, "1")
    assert not client.is_model_ready(name, "7")
    assert (entry["shape"], entry["datatype"]) == ([-1, *spec.tensor.shape], datatype_of(spec.tensor.dtype))
    assert config["input"][0]["dims"] == entry["shape"][1:]
    assert config["output"][0]["dims"] == output["shape"][1:]
    assert output["shape"][1] > 0


@each_model
def test_the_same_sample_has_the_same_numbers_through_every_door(
    client: triton.InferenceServerClient,
    url: str,
    name: str,
    spec: ModelSpec,
) -> None:
    expected = predicted(url, name, spec)
    for binary_in in (True, False):
        inputs = given(spec.example, binary=binary_in)
        for outputs in (None, wanted(binary=True), wanted(binary=False)):
            answer = client.infer(name, inputs, outputs=outputs, request_id="mine")
            assert answer.get_response()["id"] == "mine"
            assert answer.get_response()["model_version"] == "1"
            assert answer.as_numpy("output").dtype == np.float32
            np.testing.assert_array_equal(answer.as_numpy("output"), expected)
    assert client.infer(name, inputs, model_version="1").as_numpy("output").tolist() == expected.tolist()


@each_model
@each_coding
def test_requests_and_answers_may_be_compressed(
    client: triton.InferenceServerClient,
    name: str,
    spec: ModelSpec,
    coding: str | None,
) -> None:
    many = np.concatenate([spec.example] * 100)
    plain = client.infer(name, given(many)).as_numpy("output")
    for binary in (True, False):
        answer = client.infer(
            name,
            given(many, binary=binary),
            outputs=wanted(binary=binary),
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        np.testing.assert_array_equal(answer.as_numpy("output"), plain)


@each_model
def test_classification(client: triton.InferenceServerClient, name: str, spec: ModelSpec) -> None:
    values = client.infer(name, given(spec.example)).as_numpy("output")
    for binary in (True, False):
        found = client.infer(name, given(spec.example), outputs=wanted(binary=binary, classes=1)).as_numpy("output")
        texts = [item.decode() if isinstance(item, bytes) else item for item in found.ravel()]
        assert [int(text.split(":")[1]) for text in texts] == values.argmax(axis=1).tolist()
        assert [float(text.split(":")[0]) for text in texts] == pytest.approx(values.max(axis=1).tolist())


def test_pictures_as_bytes(client: triton.InferenceServerClient) -> None:
    pictures = np.array([SEVEN, SEVEN], dtype=object)
    found = client.infer("mnist", given(pictures)).as_numpy("output")
    assert found.argmax(axis=1).tolist() == [7, 7]
    assert refused(client, given(np.array([b"junk"], dtype=object)))[0] == "400"


@each_model
def test_the_aio_client(url: str, name: str, spec: ModelSpec) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready(name)
            assert (await client.get_model_metadata(name))["name"] == name
            many = np.concatenate([spec.example] * 100)
            answers = await asyncio.gather(
                *(
                    client.infer(
                        name,
                        given(many, binary=binary),
                        request_compression_algorithm=coding,
                        response_compression_algorithm=coding,
                    )
                    for binary in (True, False)
                    for coding in (None, "gzip", "deflate")
                ),
            )
            for answer in answers:
                np.testing.assert_allclose(answer.as_numpy("output"), answers[0].as_numpy("output"), atol=1e-6)
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", given(many))

    asyncio.run(ask())


PIXELS = np.zeros((1, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("inputs", "arguments", "status", "words"),
    [
        (given(PIXELS, name="x"), {}, "400", "unknown input 'x'"),
        (given(PIXELS) + given(PIXELS), {}, "400", "twice"),
        (given(PIXELS), {"outputs": wanted(name="x")}, "400", "unknown output 'x'"),
        (given(PIXELS.astype(np.float32)), {}, "400", "datatype 'FP32'; send UINT8"),
        (given(PIXELS.astype(np.float16)), {}, "400", "datatype 'FP16'; send UINT8"),
        (given(PIXELS.reshape(1, 784)), {}, "400", "shape"),
        (given(PIXELS[:, :27]), {}, "400", "shape"),
        (given(PIXELS, shape=[2, 28, 28]), {}, "400", "takes 1568 bytes, not 784"),
        (given(PIXELS, shape=[-1, 28, 28]), {}, "400", "none of them negative"),
        (given(PIXELS, binary=False, shape=[2, 28, 28]), {}, "400", "announced as"),
        (given(PIXELS), {"model": "nope"}, "404", "unknown model 'nope'"),
        (given(PIXELS), {"model_version": "9"}, "404", "no version 9"),
    ],
)
def test_the_client_shows_what_was_wrong(
    client: triton.InferenceServerClient,
    inputs: list[Any],
    arguments: dict[str, Any],
    status: str,
    words: str,
) -> None:
    shown_status, message = refused(client, inputs, **arguments)
    assert shown_status == status
    assert words in message
    assert "decoding the response" not in message


def test_the_repository_and_the_statistics(client: triton.InferenceServerClient) -> None:
    states = {row["name"]: row["state"] for row in client.get_model_repository_index()}
    assert states.keys() == specs().keys()
    assert {name for name, state in states.items() if state == "READY"} == shipped_specs().keys()
    client.unload_model("classifier", unload_dependents=True)
    assert not client.is_model_ready("classifier")
    assert client.is_server_ready()
    client.load_model("classifier")
    assert client.is_model_ready("classifier")
    with pytest.raises(InferenceServerException, match="configuration and files"):
        client.load_model("classifier", config="{}", files={"file:1/model.pt": b"x"})

    client.infer("classifier", given(specs()["classifier"].example))
    (stats,) = client.get_inference_statistics("classifier")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] > 0
    assert stats["execution_count"] > 0
    everything = client.get_inference_statistics()["model_stats"]
    assert [entry["name"] for entry in everything] == list(specs())
