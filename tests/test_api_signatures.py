"""POST /predict, GET /models, /preview, /explain and the API description of models with named inputs and outputs."""

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from models.signature import Array, Picture
from service.api.signatures import example_body
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import no_recipes, npy, serving
from tests.signatures import SIGNATURES, save, spot

NPZ = {"accept": "application/x-npz"}


def png(level: int) -> bytes:
    file = io.BytesIO()
    spot(level).save(file, "PNG")
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("pretrained")
    for name in SIGNATURES:
        save(folder, name)
    with serving(folder, SIGNATURES, recipes=no_recipes) as client:
        yield client


def predicted(client: TestClient, name: str, **body: Any) -> list[Any]:
    response = client.post(f"/predict/{name}", **body)
    assert response.status_code == 200, response.text
    predictions: list[Any] = response.json()["predictions"]
    return predictions


def test_one_bad_sample_fails_alone_and_is_named(client: TestClient) -> None:
    good = {"age": 22, "sex": "male", "fare": 7.25}
    rows = [good, {**good, "sex": "femal"}, {**good, "age": None}, {**good, "cabin": 1}, 5, good]
    first, sex, age, cabin, five, last = predicted(client, "table", json={"inputs": rows})
    assert first == last == {"value": pytest.approx(first["value"])}
    assert sex["error"] == {"title": "Wrong value", "detail": "sex: 'femal' is none of 'female', 'male'"}
    assert age["error"] == {"title": "Missing value", "detail": "age is missing and has no default"}
    assert "no input 'cabin'" in cabin["error"]["detail"]
    assert "age, sex, fare (optional)" in five["error"]["detail"]


def test_a_body_without_a_good_sample_is_422(client: TestClient) -> None:
    row = {"age": 22, "sex": "femal"}
    assert is_problem(client.post("/predict/table", json={"inputs": [row]}), 422, "^Wrong value.*sex: 'femal'")
    assert is_problem(client.post("/predict/table", json={"inputs": [row, row]}), 422, "sample 0: sex: 'femal'")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "Malformed JSON"),
        ({"json": {"rows": []}}, 422, "one field"),
        ({"json": {"inputs": []}}, 422, "at least one sample"),
        ({"content": b"x", "headers": {"content-type": "application/x-npz"}}, 400, "not an .npz file"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "send one of application/json, applic"),
        ({"content": b"x", "headers": {"content-type": "application/x-npy"}}, 415, "application/x-npz"),
    ],
    ids=["json", "field", "empty", "npz", "picture", "npy"],
)
def test_a_body_of_another_form_is_refused(client: TestClient, body: Any, status: int, said: str) -> None:
    assert is_problem(client.post("/predict/table", **body), status, said)


def test_null_absent_and_nan_mean_the_default(client: TestClient) -> None:
    row = {"age": 22, "sex": "male"}
    absent, null = predicted(client, "table", json={"inputs": [row, {**row, "fare": None}]})
    arrays = npz(age=[22.0], sex=["male"], fare=[np.nan])
    (nan,) = predicted(client, "table", content=arrays, headers={"content-type": "application/x-npz"})
    assert absent == null == {"value": pytest.approx(nan["value"])}


def test_a_single_text_may_be_plain(client: TestClient) -> None:
    plain, named = predicted(client, "text", json={"inputs": ["good film", {"review": "good film"}]})
    assert plain == named
    assert plain["label"] in {"negative", "positive"}


def test_series_of_any_length_have_the_same_answer_alone_and_in_company(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    rows = [{"series": rng.normal(size=(length, 2)).tolist()} for length in (1, 200, 3, 50, 7, 199)]
    together = predicted(client, "series", json={"inputs": rows})
    for row, wanted in zip(rows, together, strict=True):
        (alone,) = predicted(client, "series", json={"inputs": [row]})
        assert alone["value"] == pytest.approx(wanted["value"], abs=1e-6)


def test_requests_of_different_lengths_that_wait_together_get_their_own_answers(client: TestClient) -> None:
    rows = [{"series": [[float(place), 1.0]] * (1 + 7 * place)} for place in range(24)]
    wanted = [predicted(client, "series", json={"inputs": [row]}) for row in rows]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: predicted(client, "series", json={"inputs": [row]}), rows))
    for mine, other in zip(found, wanted, strict=True):
        assert mine[0]["value"] == pytest.approx(other[0]["value"], abs=1e-6)


def test_more_samples_than_a_batch_of_any_length(client: TestClient) -> None:
    rows = [{"steps": [float(place % 100)] * (1 + place % 40)} for place in range(300)]
    found = predicted(client, "tagger", json={"inputs": rows})
    assert [len(one["tags"]) for one in found] == [len(row["steps"]) for row in rows]


def test_npy_and_npz_of_one_input(client: TestClient) -> None:
    series = np.ones((3, 5, 2), np.float32)
    by_npy = predicted(client, "series", content=npy(series), headers={"content-type": "application/x-npy"})
    by_npz = predicted(client, "series", content=npz(series=series), headers={"content-type": "application/x-npz"})
    assert by_npy == by_npz
    assert len(by_npy) == 3


def test_npz_answers_carry_every_output(client: TestClient) -> None:
    body = {"inputs": SIGNATURES["heads"].example}
    response = client.post("/predict/heads", json=body, headers=NPZ)
    assert response.headers["content-type"] == "application/x-npz"
    arrays = np.load(io.BytesIO(response.content), allow_pickle=False)
    predictions = predicted(client, "heads", json=body)
    assert {name: (arrays[name].shape, arrays[name].dtype.name) for name in arrays} == {
        "kind": ((2, 2), "float32"),
        "size": ((2,), "float32"),
    }
    np.testing.assert_allclose(arrays["kind"], [one["kind"] for one in predictions], rtol=1e-6)
    np.testing.assert_allclose(arrays["size"], [one["size"] for one in predictions], rtol=1e-6)


def test_one_of_several_outputs_cannot_be_asked_for_as_npy(client: TestClient) -> None:
    body = {"inputs": SIGNATURES["heads"].example}
    response = client.post("/predict/heads", json=body, headers={"accept": "application/x-npy"})
    assert response.headers["content-type"] == "application/json"


def test_requests_of_other_lengths_in_the_same_batch_do_not_matter_to_npz(client: TestClient) -> None:
    def ask(length: int) -> tuple[int, ...]:
        body = {"inputs": [{"steps": [1.0] * length}] * 2}
        response = client.post("/predict/tagger", json=body, headers=NPZ)
        assert response.status_code == 200, response.text
        shape: tuple[int, ...] = np.load(io.BytesIO(response.content))["tags"].shape
        return shape

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(1, 41))) == [(2, length) for length in range(1, 41)]


def test_npz_has_no_place_for_errors_and_lengths_that_differ(client: TestClient) -> None:
    bad = {"inputs": [{"steps": [1.0]}, {"steps": ["x"]}]}
    assert is_problem(client.post("/predict/tagger", json=bad, headers=NPZ), 422, "sample 1: steps: .*Ask for JSON")
    uneven = {"inputs": [{"steps": [1.0]}, {"steps": [1.0, 2.0]}]}
    assert is_problem(client.post("/predict/tagger", json=uneven, headers=NPZ), 422, "different lengths.*ask for JSON")


@pytest.mark.parametrize("weights", ["image/png", "application/json;q=0.5, image/png", "image/png;q=0.9, text/html"])
def test_a_picture_answer_is_png_if_the_client_asks_for_it(client: TestClient, weights: str) -> None:
    headers = {"content-type": "image/png", "accept": weights}
    response = client.post("/predict/denoiser", content=png(100), headers=headers)
    assert response.headers["content-type"] == "image/png"
    (prediction,) = predicted(client, "denoiser", content=png(100), headers={"content-type": "image/png"})
    assert np.asarray(Image.open(io.BytesIO(response.content))).tolist() == prediction["clean"]


def test_a_png_answer_is_for_one_sample(client: TestClient) -> None:
    files: Any = [("a", ("a.png", png(1))), ("b", ("b.png", png(2)))]
    response = client.post("/predict/denoiser", files=files, headers={"accept": "image/png"})
    assert is_problem(response, 422, "the answer of one sample, the body has 2")
    response = client.post("/predict/heads", json={"inputs": [{"samples": [1, 2, 3]}]}, headers={"accept": "image/png"})
    assert response.headers["content-type"] == "application/json"


def test_pictures_by_field_name_and_in_json_have_the_same_answers(client: TestClient) -> None:
    files: Any = [
        ("left", ("a.png", png(0))),
        ("left", ("b.png", png(50))),
        ("right", ("c.png", png(200))),
        ("right", ("d.png", b"nonsense")),
    ]
    first, second = predicted(client, "siamese", files=files)
    left, right = (base64.b64encode(png(level)).decode() for level in (0, 200))
    rows = [{"left": left, "right": f"data:image/png;base64,{right}"}]
    assert predicted(client, "siamese", json={"inputs": rows}) == [first]
    assert second["error"]["detail"].startswith("right: ")


def test_a_form_with_a_missing_picture_says_how_many_came(client: TestClient) -> None:
    files: Any = [("left", ("a.png", png(0))), ("left", ("b.png", png(0))), ("right", ("c.png", png(0)))]
    assert is_problem(client.post("/predict/siamese", files=files), 422, "left 2 times, right 1 times")
    assert is_problem(client.post("/predict/table", files=files), 415)


def test_every_example_of_the_description_is_answered_in_the_described_form(client: TestClient) -> None:
    for model in client.get("/models").json()["models"]:
        jsonschema.validate(model["example"], model["body_schema"])
        for prediction in predicted(client, model["name"], json=model["example"]):
            jsonschema.validate(prediction, model["prediction_schema"])


def test_the_signature_is_described(client: TestClient) -> None:
    table, text, series, siamese, heads, denoiser = (
        client.get(f"/models/{name}").json()["signature"]
        for name in ("table", "text", "series", "siamese", "heads", "denoiser")
    )
    assert [(one["name"], one["kind"], one["required"]) for one in table["inputs"]] == [
        ("age", "number", True),
        ("sex", "category", True),
        ("fare", "number", False),
    ]
    assert (table["inputs"][0]["low"], table["inputs"][0]["high"]) == (0, 120)
    assert table["inputs"][1]["values"] == ["female", "male"]
    assert table["outputs"] == [
        {"name": "output", "dtype": "float32", "shape": [None], "labels": None, "picture": False}
    ]
    assert (text["inputs"][0]["kind"], text["inputs"][0]["max_chars"]) == ("text", 200)
    assert series["inputs"][0]["shape"] == [None, 2]
    assert [one["kind"] for one in siamese["inputs"]] == ["picture", "picture"]
    assert heads["outputs"] == [
        {"name": "kind", "dtype": "float32", "shape": [2], "labels": ["cat", "dog"], "picture": False},
        {"name": "size", "dtype": "float32", "shape": [], "labels": None, "picture": False},
    ]
    assert (denoiser["outputs"][0]["dtype"], denoiser["outputs"][0]["picture"]) == ("uint8", True)


def test_the_signature_of_a_one_tensor_model(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        (entry,) = client.get("/models/line").json()["signature"]["inputs"]
    assert (entry["name"], entry["kind"], entry["shape"], entry["dtype"]) == ("input", "tensor", [1], "float32")


def test_the_api_description_has_bodies_and_answers_of_each_model(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    table, siamese, denoiser, heads = (
        paths[f"/predict/{name}"]["post"] for name in ("table", "siamese", "denoiser", "heads")
    )
    content = table["requestBody"]["content"]
    assert content["application/json"]["example"]["inputs"][0] == {"age": 22, "sex": "male", "fare": None}
    described = content["application/x-npz"]["schema"]["description"]
    assert described.startswith("an .npz file: age float32 (N), sex values (N), fare float32 (N);")
    assert set(siamese["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]) == {"left", "right"}
    assert "image/png" in denoiser["responses"]["200"]["content"]
    answered = heads["responses"]["200"]["content"]
    assert answered["application/x-npz"]["schema"]["description"] == "arrays: kind float32 (N, 2), size float32 (N)"
    assert "of the classes cat, dog" in str(answered["application/json"])


def test_previews_are_the_arrays_of_the_live_version(client: TestClient) -> None:
    response = client.post("/preview/text", json={"inputs": ["good film", " "]})
    first, second = response.json()["samples"]
    assert first == {"ids": [1, 3]}
    assert second["error"]["title"] == "No words"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(data=st.data())
def test_whatever_a_sample_is_it_gets_an_answer_or_a_refusal(client: TestClient, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SIGNATURES)))
    names = st.sampled_from(sorted(SIGNATURES[name].inputs)) | st.text(max_size=5)
    samples = data.draw(st.lists(VALUES | st.dictionaries(names, VALUES, max_size=4), max_size=4))
    response = client.post(f"/predict/{name}", json={"inputs": samples})
    assert response.status_code in {200, 422}, response.text
    if response.status_code == 200:
        assert len(response.json()["predictions"]) == len(samples)


@given(content=st.binary(max_size=300) | st.builds(lambda tail: b"PK\x03\x04" + tail, st.binary(max_size=300)))
def test_whatever_an_npz_body_is_it_gets_a_refusal(client: TestClient, content: bytes) -> None:
    response = client.post("/predict/table", content=content, headers={"content-type": "application/x-npz"})
    assert response.status_code in {400, 422}, response.text


def test_an_example_with_arrays_for_pictures_is_a_valid_body() -> None:
    arrays: list[Array] = [
        np.zeros((8, 8), np.uint8),
        np.zeros((3, 8, 8), np.float32),
        np.ones((1, 8, 8), np.float32),
        np.zeros((8, 8, 3), np.uint8),
    ]
    for array in arrays:
        kind = Picture(np.asarray, array.shape, array.dtype)
        spec = replace(SIGNATURES["denoiser"], inputs={"picture": kind}, example=[{"picture": array}])
        (sample,) = example_body(spec)["inputs"]
        with Image.open(io.BytesIO(base64.b64decode(sample["picture"]))) as picture:
            assert picture.size == (8, 8)
