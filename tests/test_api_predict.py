import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.entries import MAX_SAMPLES
from models.mnist import drawn_seven
from service.telemetry.ids import version_of
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import npy, png, serving

SEVEN = png(drawn_seven())
BROKEN = SEVEN[: len(SEVEN) // 2]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(max_body_bytes=300_000, max_pixels=1_000_000) as client:
        yield client


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


def test_json_rows_are_answered_in_order(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[0], [1], [2.5]]})
    assert response.status_code == 200
    answer = response.json()
    identity = answer.pop("id")
    assert answer == {"model": "line", "version": 1, "predictions": [{"value": 1}, {"value": 3}, {"value": 6}]}
    assert response.headers["x-prediction-id"] == identity
    assert version_of(identity) == 1
    assert response.headers["x-model-version"] == "1"
    assert re.fullmatch(
        r"decode;dur=[\d.]+, queue;dur=[\d.]+, forward;dur=[\d.]+, total;dur=[\d.]+",
        response.headers["server-timing"],
    )


def test_npy_in_and_out(line: TestClient) -> None:
    headers = {"content-type": "application/x-npy", "accept": "application/x-npy"}
    response = line.post("/predict/line", content=npy(np.array([[1.0], [2.0]], np.float32)), headers=headers)
    answer = np.load(io.BytesIO(response.content))
    assert response.headers["content-type"] == "application/x-npy"
    assert answer.dtype == np.float32
    assert answer.tolist() == [[3], [5]]


def test_one_bad_sample_fails_alone(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[0], ["x"], [2], [1, 2]]})
    assert response.status_code == 200
    first, second, third, fourth = response.json()["predictions"]
    assert (first, third) == ({"value": 1}, {"value": 5})
    assert second["error"]["title"] == "Wrong sample"
    assert "shape" in fourth["error"]["detail"]


def test_a_body_with_no_good_sample_is_422(line: TestClient) -> None:
    assert is_problem(line.post("/predict/line", json={"inputs": [["x"]]}), 422, "Wrong sample")
    assert is_problem(line.post("/predict/line", json={"inputs": [["x"], [None]]}), 422)


def test_an_answer_that_is_not_finite_fails_alone(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[3e38], [1]]})
    assert response.json()["predictions"][0]["error"]["title"] == "No finite answer"
    assert response.json()["predictions"][1] == {"value": 3}
    assert is_problem(line.post("/predict/line", json={"inputs": [[3e38]]}), 422, "not a finite")


def test_an_npy_answer_has_no_place_for_errors(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[1], ["x"]]}, headers={"accept": "application/x-npy"})
    assert is_problem(response, 422, "sample 1: .*Ask for JSON")


def test_more_samples_than_a_batch_are_answered_whole(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[i] for i in range(1000)]})
    assert [p["value"] for p in response.json()["predictions"]] == [2 * i + 1 for i in range(1000)]


@pytest.mark.parametrize(
    "media_type",
    ["image/png", "application/octet-stream", "", "IMAGE/PNG", "image/png; charset=binary"],
)
def test_the_bytes_of_one_picture(client: TestClient, media_type: str) -> None:
    response = client.post("/predict/mnist", content=SEVEN, headers={"content-type": media_type} if media_type else {})
    (prediction,) = response.json()["predictions"]
    assert prediction["label"] == 7
    assert prediction["probability"] == max(prediction["probabilities"])
    assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert len(prediction["probabilities"]) == 10


@pytest.mark.parametrize("kind", ["jpeg", "webp", "bmp", "gif"])
def test_pictures_of_other_formats(client: TestClient, kind: str) -> None:
    content = png(drawn_seven(), kind.upper())
    response = client.post("/predict/mnist", content=content, headers={"content-type": f"image/{kind}"})
    assert response.json()["predictions"][0]["label"] == 7


def test_every_body_kind_gives_the_same_numbers(client: TestClient) -> None:
    pixels = drawn_seven()[None]
    bodies: list[dict[str, Any]] = [
        {"content": SEVEN},
        {"files": {"anything": SEVEN}},
        {"json": {"inputs": pixels.tolist()}},
        {"content": npy(pixels), "headers": {"content-type": "application/x-npy"}},
    ]
    answers = [client.post("/predict/mnist", **body).json() for body in bodies]
    assert all(answer["predictions"] == answers[0]["predictions"] for answer in answers)
    assert len({answer["id"] for answer in answers}) == len(answers)


def test_a_form_of_several_pictures_with_a_broken_one(client: TestClient) -> None:
    files: Any = [("a", ("x.png", SEVEN)), ("b", ("y.png", BROKEN)), ("a", ("z", SEVEN, "text/plain"))]
    response = client.post("/predict/mnist", files=files)
    first, second, third = response.json()["predictions"]
    assert first["label"] == third["label"] == 7
    assert second["error"]["title"] == "Damaged picture"


def test_a_form_of_256_pictures_is_taken_and_one_more_is_not(client: TestClient) -> None:
    assert len(client.post("/predict/mnist", files=[("f", SEVEN)] * 256).json()["predictions"]) == 256
    assert is_problem(client.post("/predict/mnist", files=[("f", SEVEN)] * 257), 413, "at most 256")


def test_s30_a_large_picture_is_decoded_off_the_loop_and_answered(client: TestClient) -> None:
    page = np.full((800, 800), 255, np.uint8)
    page[100:380, 200:480] = 255 - np.kron(drawn_seven(), np.ones((10, 10), np.uint8))
    assert client.post("/predict/mnist", content=png(page)).json()["predictions"][0]["label"] == 7


FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": BROKEN}, 422, "Damaged picture"),
        ({"content": b"hello"}, 422, "No picture.*send PNG"),
        ({"content": b""}, 422, "No picture"),
        ({"content": png(np.zeros((1001, 1000), np.uint8))}, 422, "at most 1000000"),
        ({"content": png(np.full((90, 90), 255, np.uint8))}, 422, "No ink"),
        ({"content": b"x" * 300_001}, 413, "300000 bytes"),
        ({"content": iter([b"x" * 200_000] * 2)}, 413, "300000 bytes"),
        ({"content": b"", "headers": {"content-length": "99999999999"}}, 413, "300000 bytes"),
        ({"content": SEVEN, "headers": {"content-type": "text/plain"}}, 415, "send one of image/png"),
        ({"content": SEVEN, "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415, "send one of"),
        ({"content": b"\x80\x04\x95", "headers": {"content-type": "application/x-pickle"}}, 415, "send one of"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "Malformed JSON"),
        ({"json": {"inputs": [[1, 2]]}}, 422, "shape"),
        ({"content": b"x", "headers": {"content-type": "application/x-npy"}}, 400, "npy"),
        ({"data": {"a": "text"}, "files": {"b": b""}}, 422, "No picture"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": FORM}, 400, "multipart"),
        ({"content": b"--x--\r\n", "headers": FORM}, 422, "holds no file"),
        (
            {"content": b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--", "headers": FORM},
            422,
            "with a file name",
        ),
        ({"files": [("f", b"no")] * 3}, 422, "No picture"),
    ],
)
def test_a_bad_body_is_a_clear_error(client: TestClient, request_: Any, status: int, words: str) -> None:
    assert is_problem(client.post("/predict/mnist", **request_), status, words)
    assert client.post("/predict/mnist", content=SEVEN).status_code == 200


def test_the_small_models_take_no_pictures_and_no_untyped_body(client: TestClient) -> None:
    for headers in ({"content-type": "image/png"}, {}, FORM):
        response = client.post("/predict/regressor", content=SEVEN, headers=headers)
        assert is_problem(response, 415, "send one of application/json, application/x-npy")


def test_too_many_samples_are_413(line: TestClient) -> None:
    response = line.post("/predict/line", json={"inputs": [[0]] * (MAX_SAMPLES + 1)})
    assert is_problem(response, 413, f"at most {MAX_SAMPLES}")


def test_an_unknown_model_lists_those_there_are(client: TestClient) -> None:
    assert is_problem(client.post("/predict/mnits", content=SEVEN), 404, "classifier, mnist, regressor")


@pytest.mark.parametrize(
    "path",
    ["/predict/..%2fmnist", "/predict/%2e%2e", "/predict/", "/predict", "/predict/a%00b", "/x"],
)
def test_s02_odd_paths_are_404(client: TestClient, path: str) -> None:
    assert is_problem(client.post(path, content=SEVEN), 404)


def test_s26_another_method_is_405_and_names_the_right_one(client: TestClient) -> None:
    response = client.get("/predict/mnist")
    assert is_problem(response, 405, "POST")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("version", "status"),
    [("1", 200), ("2", 404), ("99999999999999", 404), ("x", 422), ("-1", 422), ("", 422), ("²", 422)],
)
def test_a_version_can_be_asked_for(line: TestClient, version: str, status: int) -> None:
    response = line.post("/predict/line", params={"version": version}, json={"inputs": [[1]]})
    assert response.status_code == status
    assert status == 200 or is_problem(response, status, "version")


def test_a_model_without_a_version_says_how_to_get_one(tmp_path: Path) -> None:
    with serving(tmp_path, {"line": LINE}) as client:
        assert is_problem(client.post("/predict/line", json={"inputs": [[1]]}), 503, "no live version: train it")


def test_every_outcome_is_counted(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        client.post("/predict/line", json={"inputs": [[1]]})
        client.post("/predict/line", json={"inputs": []})
        text = client.get("/metrics").text
    assert 'torchloop_requests_total{model="line",status="200"} 1.0' in text
    assert 'torchloop_requests_total{model="line",status="422"} 1.0' in text
    assert 'torchloop_stage_seconds_count{model="line",stage="forward"} 1.0' in text
