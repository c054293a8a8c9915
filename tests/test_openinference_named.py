"""Models with named inputs and outputs in the Open Inference Protocol."""

import base64
import io
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.entries import MAX_SAMPLES
from models.signature import Category, Number, Output, Padded, Picture, Text
from models.signature import Tensor as TensorInput
from models.spec import ModelSpec
from service.api.openinference.codec import Tensor, parse
from service.api.openinference.rows import rows
from service.api.openinference.tensors import TensorType, datatype_of, elements, to_bytes
from service.errors import Malformed
from tests.openinference import LENGTH, framed, is_error
from tests.serving import no_recipes, serving
from tests.signatures import SIGNATURES, Tagger, grey_8x8, save, spot

AGE = {"name": "age", "datatype": "FP32", "shape": [2], "data": [22, 38]}
SEX = {"name": "sex", "datatype": "BYTES", "shape": [2], "data": ["male", "female"]}
FARE = {"name": "fare", "datatype": "FP32", "shape": [2], "data": [7.25, None]}
TEXTS = {"name": "review", "datatype": "BYTES", "shape": [2], "data": ["good film", "not a good film at all"]}
STEPS = {"name": "steps", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
THING = {"name": "samples", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}


def lengths_of_words(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"steps": [float(len(word)) for word in sample["line"].split()]}


WORDS = ModelSpec(
    summary="a number for each word of a text",
    network=Tagger,
    inputs={"line": Text(default="good film")},
    encode=lengths_of_words,
    padding={"steps": Padded()},
    outputs={"tags": Output((None,), like="steps")},
    example=["good"],
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("pretrained")
    for name in SIGNATURES:
        save(folder, name)
    sha256 = state_dict.save_weights(Tagger().state_dict(), folder / "words.pt")
    state_dict.save_record(Record(model="words", sha256=sha256), folder / "words.pt")
    with serving(folder, {**SIGNATURES, "words": WORDS}, recipes=no_recipes) as client:
        yield client


def png(level: int) -> bytes:
    file = io.BytesIO()
    spot(level).save(file, "PNG")
    return file.getvalue()


def pictures(name: str, *levels: int) -> dict[str, Any]:
    data = [base64.b64encode(png(level)).decode() for level in levels]
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}


def inferred(client: TestClient, name: str, *inputs: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The outputs of a request in JSON, by name."""
    response = client.post(f"/v2/models/{name}/infer", json={"inputs": list(inputs), **more})
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def values(client: TestClient, name: str, inputs: Any) -> list[Any]:
    predictions = client.post(f"/predict/{name}", json={"inputs": inputs}).json()["predictions"]
    return [next(iter(one.values())) for one in predictions]


def test_the_index_and_readiness_have_them(client: TestClient) -> None:
    index = client.post("/v2/repository/index").json()
    assert {row["name"]: row["state"] for row in index} == dict.fromkeys([*SIGNATURES, "words"], "READY")
    assert client.get("/v2/models/table/ready").json() == {"name": "table", "ready": True}


def test_the_metadata_has_a_tensor_for_each_input_and_output(client: TestClient) -> None:
    table = client.get("/v2/models/table").json()
    described = [(one["name"], one["datatype"], one["shape"]) for one in table["inputs"]]
    assert described == [("age", "FP32", [-1]), ("sex", "BYTES", [-1]), ("fare", "FP32", [-1])]
    age, sex, fare = (one["parameters"] for one in table["inputs"])
    assert "optional" not in age | sex
    assert sex["description"] == "one of female, male"
    assert fare["optional"] is True
    assert "may be left out, and NaN or null in JSON means the default" in fare["description"]
    assert table["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("text", [("BYTES", [-1])], [("FP32", [-1, 2])]),
        ("series", [("FP32", [-1, -1, 2])], [("FP32", [-1, 1])]),
        ("tagger", [("FP32", [-1, -1])], [("FP32", [-1, -1])]),
        ("siamese", [("BYTES", [-1]), ("BYTES", [-1])], [("FP32", [-1, 1])]),
        ("heads", [("FP32", [-1, 3])], [("FP32", [-1, 2]), ("FP32", [-1])]),
        ("denoiser", [("BYTES", [-1])], [("UINT8", [-1, 8, 8])]),
    ],
)
def test_the_tensors_of_every_kind(client: TestClient, name: str, inputs: Any, outputs: Any) -> None:
    metadata = client.get(f"/v2/models/{name}").json()
    assert [(one["datatype"], one["shape"]) for one in metadata["inputs"]] == inputs
    assert [(one["datatype"], one["shape"]) for one in metadata["outputs"]] == outputs


def test_labels_lengths_and_formats_are_described(client: TestClient) -> None:
    heads, series, denoiser = (client.get(f"/v2/models/{name}").json() for name in ("heads", "series", "denoiser"))
    assert heads["outputs"][0]["parameters"] == {"labels": "cat, dog"}
    assert "1 to 1000 elements, as many for all samples" in series["inputs"][0]["parameters"]["description"]
    assert "also UINT8 of shape [-1, 8, 8]" in denoiser["inputs"][0]["parameters"]["description"]
    config = client.get("/v2/models/table/config").json()
    assert [(one["data_type"], one.get("optional", False)) for one in config["input"]] == [
        ("TYPE_FP32", False), ("TYPE_STRING", False), ("TYPE_FP32", True)
    ]  # fmt: skip


def test_mixed_columns_have_the_values_of_predict(client: TestClient) -> None:
    rows = [{"age": 22, "sex": "male", "fare": 7.25}, {"age": 38, "sex": "female", "fare": None}]
    output = inferred(client, "table", AGE, SEX, FARE)["output"]
    assert (output["shape"], output["datatype"]) == ([2, 1], "FP32")
    assert output["data"] == pytest.approx(values(client, "table", rows))


def test_an_optional_input_may_be_left_out(client: TestClient) -> None:
    rows = [{"age": 22, "sex": "male"}, {"age": 38, "sex": "female"}]
    assert inferred(client, "table", AGE, SEX)["output"]["data"] == pytest.approx(values(client, "table", rows))


def test_columns_of_shape_n_1_are_taken_as_other_servers_do(client: TestClient) -> None:
    columns = [{**one, "shape": [2, 1]} for one in (AGE, SEX, FARE)]
    assert inferred(client, "table", *columns) == inferred(client, "table", AGE, SEX, FARE)


def test_texts(client: TestClient) -> None:
    output = inferred(client, "text", TEXTS)["output"]
    labels = np.array(["negative", "positive"])[np.reshape(output["data"], (2, 2)).argmax(axis=1)]
    assert labels.tolist() == values(client, "text", TEXTS["data"])


def test_pictures_as_base64_and_as_arrays(client: TestClient) -> None:
    rows = [{"left": one["data"][0], "right": other["data"][0]} for one, other in [(pictures("", 0), pictures("", 90))]]
    wanted = pytest.approx(values(client, "siamese", rows))
    assert inferred(client, "siamese", pictures("left", 0), pictures("right", 90))["output"]["data"] == wanted
    arrays = [
        {"name": name, "datatype": "UINT8", "shape": [1, 8, 8], "data": [grey_8x8(spot(level)).tolist()]}
        for name, level in (("left", 0), ("right", 90))
    ]
    assert inferred(client, "siamese", *arrays)["output"]["data"] == wanted


def test_a_picture_answer_is_a_tensor_of_bytes(client: TestClient) -> None:
    output = inferred(client, "denoiser", pictures("picture", 100))["clean"]
    assert (output["datatype"], output["shape"]) == ("UINT8", [1, 8, 8])
    (clean,) = values(client, "denoiser", [{"picture": pictures("", 100)["data"][0]}])
    assert np.reshape(output["data"], (8, 8)).tolist() == clean


def test_several_outputs_those_asked_for_and_classes_by_their_names(client: TestClient) -> None:
    both = inferred(client, "heads", THING)
    assert {name: (one["datatype"], one["shape"]) for name, one in both.items()} == {
        "kind": ("FP32", [1, 2]),
        "size": ("FP32", [1]),
    }
    assert inferred(client, "heads", THING, outputs=[{"name": "size"}]) == {"size": both["size"]}
    best = inferred(client, "heads", THING, outputs=[{"name": "kind", "parameters": {"classification": 2}}])["kind"]
    index = int(np.argmax(both["kind"]["data"]))
    assert best["data"][0].split(":")[1:] == [str(index), ["cat", "dog"][index]]
    assert best["shape"] == [1, 2]


def test_series_of_one_length_in_a_request_of_any_length(client: TestClient) -> None:
    output = inferred(client, "tagger", STEPS)["tags"]
    assert output["shape"] == [2, 3]
    expected = values(client, "tagger", [{"steps": [1, 2, 3]}, {"steps": [4, 5, 6]}])
    np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["tagger", "unpadded"])
def test_requests_of_other_lengths_in_the_same_batch_do_not_matter(client: TestClient, name: str) -> None:
    def ask(length: int) -> list[int]:
        steps = {"name": "steps", "datatype": "FP32", "shape": [2, length], "data": [1.0] * (2 * length)}
        shape: list[int] = inferred(client, name, steps)["tags"]["shape"]
        return shape

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(1, 41))) == [[2, length] for length in range(1, 41)]


def test_every_input_and_output_in_binary(client: TestClient) -> None:
    blobs = {
        "age": to_bytes(np.array([22, 38], np.float32)),
        "sex": framed(b"male", b"female"),
        "fare": to_bytes(np.array([7.25, np.nan], np.float64)),
    }
    datatypes = {"age": "FP32", "sex": "BYTES", "fare": "FP64"}
    inputs = [
        {"name": name, "datatype": datatypes[name], "shape": [2], "parameters": {"binary_data_size": len(blob)}}
        for name, blob in blobs.items()
    ]
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    content = head + b"".join(blobs.values())
    response = client.post("/v2/models/table/infer", content=content, headers={LENGTH: str(len(head))})
    found = np.frombuffer(response.content[int(response.headers[LENGTH]) :], "<f4")
    np.testing.assert_allclose(found, inferred(client, "table", AGE, SEX, FARE)["output"]["data"], rtol=1e-6)


def test_the_raw_form_of_a_text_and_of_a_picture(client: TestClient) -> None:
    for name, content, output in (("text", b"good film", "FP32"), ("denoiser", png(100), "UINT8")):
        response = client.post(f"/v2/models/{name}/infer", content=content, headers={LENGTH: "0"})
        head = orjson.loads(response.content[: int(response.headers[LENGTH])])
        assert head["outputs"][0]["datatype"] == output


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("table", [AGE, {**SEX, "data": ["male", "femal"]}], "sample 1: sex: 'femal' is none of 'female', 'male'"),
        ("table", [{**AGE, "data": [22, 121]}, SEX], "sample 1: age: 121 is not from 0 to 120"),
        ("table", [{**AGE, "shape": [1], "data": [-1]}, {**SEX, "shape": [1], "data": ["male"]}], "sample 0: age: -1"),
        ("table", [AGE, {**SEX, "data": ["male", ""]}], "sample 1: sex: '' is none of"),
        ("table", [AGE], "input 'sex' is missing"),
        ("table", [], "input 'age' is missing"),
        ("table", [AGE, {**SEX, "shape": [1], "data": ["male"]}], "Unequal counts: the first dimension.*age 2, sex 1"),
        ("table", [{**AGE, "shape": [0], "data": []}, {**SEX, "shape": [0], "data": []}], "at least one"),
        ("table", [{**AGE, "data": [None, 1]}, SEX], "data of FP32 must be float or int"),
        ("table", [{**AGE, "datatype": "INT32"}, SEX], "'age' has datatype 'INT32'; send FP32 of shape .-1. or FP64"),
        ("table", [AGE, SEX, {**FARE, "name": "cabin"}], "unknown input 'cabin'; there is age, sex, fare"),
        ("text", [{**TEXTS, "data": ["good", " "]}], "sample 1: review: the text has no words"),
        ("text", [{**TEXTS, "data": ["good", "x" * 201]}], "sample 1: review: the text has 201 characters"),
        ("tagger", [{**STEPS, "data": [1, 2, 3, 4, 5, 101]}], "sample 1: steps: every number must be finite and"),
        ("tagger", [{**STEPS, "shape": [2, 0], "data": []}], "sample 0: steps: it has 0 elements; send 1 to"),
        ("series", [{**STEPS, "name": "series"}], "'series' has shape .2, 3.; send FP32 of shape .-1, -1, 2."),
        ("denoiser", [{**pictures("picture", 1), "data": ["!"]}], "sample 0: picture: the picture is neither base64"),
        ("denoiser", [{**pictures("picture", 1), "data": ["aGk="]}], "sample 0: picture: "),
    ],
)
def test_what_is_wrong_is_named(client: TestClient, name: str, inputs: Any, words: str) -> None:
    response = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs})
    assert is_error(response, 400)
    assert re.search(words, response.json()["error"]), response.text


def test_too_many_samples(client: TestClient) -> None:
    many = {**TEXTS, "shape": [MAX_SAMPLES + 1], "data": ["a"] * (MAX_SAMPLES + 1)}
    response = client.post("/v2/models/text/infer", json={"inputs": [many]})
    assert is_error(response, 413, f"send at most {MAX_SAMPLES}")


def test_without_any_input_there_is_no_number_of_samples() -> None:
    forms = {"age": [TensorType("age", "FP32", (-1,), optional=True)]}
    with pytest.raises(Malformed, match="send one of the inputs age: its shape says how many samples"):
        parse(b'{"inputs": []}', None, forms, ["output"])


def test_answers_of_different_lengths_are_for_one_sample_at_a_time(client: TestClient) -> None:
    together = {"name": "line", "datatype": "BYTES", "shape": [2], "data": ["a good film", "good"]}
    response = client.post("/v2/models/words/infer", json={"inputs": [together]})
    assert is_error(response, 400, "the samples' tags have different lengths, a tensor cannot hold them")
    alone = {**together, "shape": [1], "data": ["a good film"]}
    assert inferred(client, "words", alone)["tags"]["shape"] == [1, 3]
    metadata = client.get("/v2/models/words").json()["inputs"][0]["parameters"]
    assert (metadata["optional"], metadata["default"]) == (True, "good film")
    empty = {**together, "data": [None, ""]}
    assert inferred(client, "words", empty)["tags"]["shape"] == [2, 2]


def test_a_text_that_is_not_utf_8(client: TestClient) -> None:
    blob = framed(b"good", b"\xff")
    head = orjson.dumps({"inputs": [{**TEXTS, "data": None, "parameters": {"binary_data_size": len(blob)}}]})
    head = head.replace(b'"data":null,', b"")
    response = client.post("/v2/models/text/infer", content=head + blob, headers={LENGTH: str(len(head))})
    assert is_error(response, 400, "sample 1: review: the bytes are not a text in UTF-8")


def test_classes_of_an_output_that_has_none(client: TestClient) -> None:
    for name, wanted, inputs in (("heads", "size", THING), ("denoiser", "clean", pictures("picture", 1))):
        outputs = [{"name": wanted, "parameters": {"classification": 1}}]
        response = client.post(f"/v2/models/{name}/infer", json={"inputs": [inputs], "outputs": outputs})
        assert is_error(response, 400, f"output '{wanted}' is ")


def test_a_version_that_is_not_there_and_an_unloaded_model(client: TestClient) -> None:
    assert is_error(client.post("/v2/models/table/versions/9/infer", json={"inputs": [AGE, SEX]}), 404, "version 9")
    versioned = client.post("/v2/models/table/versions/1/infer", json={"inputs": [AGE, SEX]})
    assert versioned.json()["model_version"] == "1"
    client.post("/v2/repository/models/table/unload")
    assert is_error(client.post("/v2/models/table/infer", json={"inputs": [AGE, SEX]}), 503, "was unloaded")
    client.post("/v2/repository/models/table/load")
    assert client.post("/v2/models/table/infer", json={"inputs": [AGE, SEX]}).status_code == 200


def test_whole_numbers_bounds_and_empty_elements() -> None:
    def given_values(kind: Any, datatype: str, data: Any) -> list[Any]:
        return [row["x"] for row in rows({"x": Tensor(TensorType("x", datatype, (-1,)), data, True)}, {"x": kind})]

    grade = Category([1, 2], default=1)
    assert given_values(grade, "BYTES", elements([b"2", b"", b"two"])) == [2, None, "two"]
    assert given_values(grade, "INT64", np.array([2, 1])) == [2, 1]
    tenth = Number(0, 0.1)
    assert [tenth.code(value) for value in given_values(tenth, "FP32", np.array([0.1], np.float32))] == [0.1]
    assert given_values(Picture(grey_8x8, (8, 8)), "BYTES", elements([b"\x89PNG"])) == [b"\x89PNG"]
    scalar = TensorInput((), low=0, high=1)
    (value,) = given_values(scalar, "FP32", np.array([0.5], np.float32))
    assert scalar.code(value) == 0.5


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_every_example_has_the_answers_of_predict(client: TestClient, name: str) -> None:
    spec: ModelSpec = SIGNATURES[name]
    body = client.get(f"/models/{name}/example").json()
    for sample, wanted in zip(body["inputs"], values(client, name, body["inputs"]), strict=True):
        row = {next(iter(spec.inputs)): sample} if isinstance(sample, str) else sample
        output = next(iter(inferred(client, name, *tensors(spec, row)).values()))
        if spec.prediction is None or "value" in spec.prediction.__annotations__:
            np.testing.assert_allclose(np.ravel(output["data"]), np.ravel(wanted), rtol=1e-5, atol=1e-6)


def tensors(spec: ModelSpec, sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One sample as tensors in JSON; null is left out."""
    found = []
    for name, value in sample.items():
        if value is not None:
            array = np.asarray([value], None if isinstance(value, str) else np.float32)
            datatype = "BYTES" if isinstance(value, str) else datatype_of(array.dtype)
            found.append({"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.tolist()})
    assert {one["name"] for one in found} <= spec.inputs.keys()
    return found


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_whatever_the_tensors_are_they_get_an_answer_or_a_refusal(client: TestClient, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SIGNATURES)))
    names = st.sampled_from(sorted(SIGNATURES[name].inputs))
    sizes = st.lists(st.integers(0, 3) | st.sampled_from([8]), min_size=1, max_size=3)
    datatypes = st.sampled_from(["BYTES", "FP32", "FP64", "UINT8", "INT64", "BOOL"])
    tensor = st.fixed_dictionaries(
        {"name": names, "shape": sizes, "datatype": datatypes, "data": st.lists(ANY, max_size=4)}
    )
    inputs = data.draw(st.lists(tensor, max_size=3))
    response = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs})
    assert response.status_code in {200, 400}, response.text
