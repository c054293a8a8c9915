"""The Open Inference Protocol over HTTP, as its specification words it."""

import base64
import gzip
import json
import zlib
from collections.abc import Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from models.spec import Array
from service.api.access import TABLE
from service.app import create_app
from service.delivery.closed import Closed
from service.errors import DeadlineExceeded, StoreUnavailable
from service.inference.batcher import Batcher
from service.inference.callers import Answer
from service.settings import Key, Settings
from tests.fakes import LINE, InProcess, save_line
from tests.openinference import LENGTH, LIMIT, SEVEN, framed, is_error, row, with_tail
from tests.serving import BASE_URL, no_recipes, serving
from tests.templates import migrated


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(max_body_bytes=LIMIT) as client:
        yield client


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that no test changes."""
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}, max_body_bytes=LIMIT, max_batch=8) as client:
        yield client


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[TestClient]:
    """A service for a test that changes it or counts its requests."""
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, max_body_bytes=LIMIT, max_batch=8) as client:
        yield client


def test_the_server_says_what_it_is(line: TestClient) -> None:
    for path in ("/v2", "/v2/"):
        response = line.get(path, follow_redirects=False)
        assert response.status_code == 200
        assert response.json()["name"] == "torchloop"
        assert {"binary_tensor_data", "model_repository", "statistics"} <= set(response.json()["extensions"])


def test_live_and_ready(line: TestClient) -> None:
    assert line.get("/v2/health/live").json() == {"live": True}
    assert line.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/line/ready", "/v2/models/line/versions/1/ready"):
        assert line.get(path).json() == {"name": "line", "ready": True}


def test_the_metadata_of_a_model(line: TestClient) -> None:
    body = line.get("/v2/models/line").json()
    assert body == line.get("/v2/models/line/versions/1").json()
    assert body == {
        "name": "line",
        "versions": ["1"],
        "platform": "pytorch_state_dict",
        "properties": {"summary": "2x + 1"},
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}],
    }


def test_the_configuration_of_a_model(line: TestClient) -> None:
    body = line.get("/v2/models/line/config").json()
    assert (body["name"], body["platform"], body["max_batch_size"]) == ("line", "pytorch_state_dict", 8)
    assert body["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [1]}]
    assert body["output"] == [{"name": "output", "data_type": "TYPE_FP32", "dims": [1]}]


def test_json_in_json_out(line: TestClient) -> None:
    for path in ("/v2/models/line/infer", "/v2/models/line/versions/1/infer"):
        response = line.post(path, json={"id": "a", "inputs": [row(0, 1)]})
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        answer = response.json()
        assert answer.pop("parameters").keys() == {"prediction_id"}
        assert answer == {
            "model_name": "line",
            "model_version": "1",
            "id": "a",
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [2, 1], "data": [1, 3]}],
        }


def test_binary_in_binary_out(line: TestClient) -> None:
    head = {
        "inputs": [row(1, data=None, parameters={"binary_data_size": 4})],
        "parameters": {"binary_data_output": True},
    }
    response = line.post("/v2/models/line/infer", **with_tail(head, np.array([2], "<f4").tobytes()))
    assert response.headers["content-type"] == "application/octet-stream"
    size = int(response.headers[LENGTH])
    (output,) = json.loads(response.content[:size])["outputs"]
    assert output["parameters"] == {"binary_data_size": 4}
    assert "data" not in output
    assert np.frombuffer(response.content[size:], "<f4").tolist() == [5]


def test_the_raw_form(line: TestClient) -> None:
    content = np.array([2], "<f4").tobytes()
    response = line.post("/v2/models/line/infer", content=content, headers={LENGTH: "0"})
    assert response.content.endswith(np.array([5], "<f4").tobytes())
    assert is_error(line.post("/v2/models/line/infer", content=content * 2, headers={LENGTH: "0"}), 400, "4 bytes")


def test_values_that_are_no_numbers_come_through(line: TestClient) -> None:
    response = line.post("/v2/models/line/infer", json={"inputs": [row(3e38, -3e38, 1)]})
    assert b"[Infinity,-Infinity,3.0]" in response.content
    assert json.loads(response.content)["outputs"][0]["data"] == [np.inf, -np.inf, 3]


def test_a_picture_is_taken_as_pixels_as_bytes_and_as_base64(client: TestClient) -> None:
    path = "/v2/models/mnist/infer"
    pixels = {"name": "input", "datatype": "UINT8", "shape": [1, 28, 28], "data": drawn_seven()[None].tolist()}
    encoded = {"name": "input", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(SEVEN).decode()]}
    tail = framed(SEVEN, SEVEN)
    pictures = {
        "name": "input",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": len(tail)},
    }
    expected = client.post("/predict/mnist", content=SEVEN).json()["predictions"][0]["probabilities"]
    for body in (pixels, encoded):
        assert client.post(path, json={"inputs": [body]}).json()["outputs"][0]["data"] == expected
    two = client.post(path, **with_tail({"inputs": [pictures]}, tail)).json()["outputs"][0]
    assert two["shape"] == [2, 10]
    assert two["data"] == pytest.approx(expected * 2, abs=1e-6)


def test_classification_names_the_best_classes(client: TestClient) -> None:
    head = {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 2], "data": [2, 2, -2, -2]}],
        "outputs": [{"name": "output", "parameters": {"classification": 1}}],
    }
    (output,) = client.post("/v2/models/classifier/infer", json=head).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 1])
    assert [text.split(":")[1] for text in output["data"]] == ["0", "1"]
    assert all(float(text.split(":")[0]) > 0.5 for text in output["data"])


def test_a_model_without_a_version_is_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path, {"line": LINE}) as client:
        assert is_error(client.post("/v2/models/line/infer", json={"inputs": [row(1)]}), 503, "no live version")
        assert client.get("/v2/models/line/ready").status_code == 503
        assert client.get("/v2/models/line").json()["outputs"][0]["shape"] == [-1, -1]
        assert client.post("/v2/repository/index").json()[0]["state"] == "UNAVAILABLE"
        assert is_error(client.post("/v2/repository/models/line/load"), 503, "no live version")


def test_the_server_is_not_ready_while_a_checkpoint_is_broken(tmp_path: Path) -> None:
    save_line(tmp_path).write_bytes(b"junk")
    with serving(tmp_path, {"line": LINE}) as client:
        response = client.get("/v2/health/ready")
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert "line: " in response.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_and_answers_are_compressed_on_request(line: TestClient, coding: str) -> None:
    body = json.dumps({"inputs": [row(*range(1000))]}).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    path = "/v2/models/line/infer"
    plain = line.post(path, content=body, headers={"accept-encoding": "identity"})
    headers = {"content-encoding": coding, "accept-encoding": coding}
    small = line.post(path, content=packed, headers=headers)
    assert "content-encoding" not in plain.headers
    assert small.headers["content-encoding"] == coding
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"])
    assert small.json()["outputs"] == plain.json()["outputs"]


def test_the_timeout_of_a_request_shortens_that_of_the_service(
    line: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timeouts = []

    async def late(_: Batcher, __: Hashable, ___: Array, timeout_s: float) -> Answer:
        timeouts.append(timeout_s)
        raise DeadlineExceeded("no answer")

    monkeypatch.setattr(Batcher, "submit", late)
    for microseconds in (0, 250_000, 99_000_000):
        body = {"inputs": [row(1)], "parameters": {"timeout": microseconds}}
        assert is_error(line.post("/v2/models/line/infer", json=body), 504, "no answer")
    assert timeouts == [10, 0.25, 10]


def test_unloading_closes_a_model_to_v2_and_to_nothing_else(fresh: TestClient) -> None:
    infer, predict = "/v2/models/line/infer", "/predict/line"
    assert fresh.post("/v2/repository/index").json() == [
        {"name": "line", "version": "1", "state": "READY", "reason": ""},
    ]
    unloaded = fresh.post("/v2/repository/models/line/unload", json={"parameters": {"unload_dependents": True}})
    assert (unloaded.status_code, unloaded.content) == (200, b"")
    for path in (infer, "/v2/models/line/versions/1/infer"):
        assert is_error(fresh.post(path, json={"inputs": [row(1)]}), 503, "was unloaded")
    assert fresh.get("/v2/models/line/ready").status_code == 503
    assert fresh.post("/v2/repository/index", json={"ready": True}).json() == []
    assert fresh.post("/v2/repository/index").json()[0]["reason"] == "unloaded"
    assert fresh.get("/v2/health/ready").status_code == 200
    assert fresh.post(predict, json={"inputs": [[1]]}).status_code == 200
    assert fresh.post("/v2/repository/models/line/load", json={}).content == b""
    assert fresh.post(infer, json={"inputs": [row(1)]}).status_code == 200


def test_unloading_is_for_all_web_processes_that_share_a_folder(tmp_path: Path) -> None:
    first, second = (Closed(["line", "other"], tmp_path) for _ in range(2))
    for one, other in ((first, second), (second, first)):
        one.add("line")
        one.add("line")
        assert ("line" in one, "line" in other, "other" in other) == (True, True, False)
        other.discard("line")
        other.discard("line")
        assert ("line" in one, "line" in other) == (False, False)
    with pytest.raises(StoreUnavailable, match="line cannot be unloaded"):
        Closed(["line"], tmp_path / "gone").add("line")


def test_a_model_unloaded_in_one_process_is_closed_in_another(tmp_path: Path) -> None:
    save_line(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    specs = {"line": LINE}
    settings = Settings(store=migrated(tmp_path / "store"))
    made = [create_app(settings, specs, tmp_path, no_recipes, partial(InProcess, specs), shared) for _ in range(2)]
    with TestClient(made[0], BASE_URL) as one, TestClient(made[1], BASE_URL) as other:
        path = "/v2/repository/models/line/"
        assert one.post(f"{path}unload").status_code == 200
        for client in (one, other):
            assert is_error(client.post("/v2/models/line/infer", json={"inputs": [row(1)]}), 503, "was unloaded")
            assert client.post("/v2/repository/index").json()[0]["reason"] == "unloaded"
            assert client.post("/predict/line", json={"inputs": [[1]]}).status_code == 200
        assert other.post(f"{path}load").status_code == 200
        for client in (one, other):
            assert client.get("/v2/models/line/ready").status_code == 200


def test_promotion_goes_on_whatever_is_unloaded_and_loading_promotes_nothing(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        upload = client.post("/models/line/versions", content=path.read_bytes())
        assert upload.json()["version"] == 2
        client.post("/v2/repository/models/line/unload")
        assert client.post("/models/line/promote", json={"version": 2}).status_code == 200
        assert client.post("/v2/repository/models/line/load").status_code == 200
        answered = client.post("/v2/models/line/infer", json={"inputs": [row(1)]}).json()
        assert answered["model_version"] == "2"
        assert client.get("/v2/models/line").json()["versions"] == ["1", "2"]
        older = client.post("/v2/models/line/versions/1/infer", json={"inputs": [row(1)]}).json()
        assert older["model_version"] == "1"
        assert client.post("/models/line/rollback").json()["live"] == 1
        assert [item["version"] for item in client.get("/models/line/promotions").json()["promotions"]] == [1, 2, 1]


def test_a_failed_reload_leaves_the_old_network_answering(tmp_path: Path) -> None:
    save_line(tmp_path)
    store = tmp_path / "store"
    with serving(tmp_path, {"line": LINE}, store=store) as client:
        for kept in store.rglob("*.pt"):
            kept.write_bytes(b"junk")
        assert is_error(client.post("/v2/repository/models/line/load"), 409, "cannot be loaded")
        assert client.post("/v2/models/line/infer", json={"inputs": [row(1)]}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("models/line/load", {"parameters": {"config": "{}"}}),
        ("models/line/load", {"parameters": {"file:1/model.pt": "AAAA"}}),
        ("models/line/load", {"parameters": {"unload_dependents": True}}),
        ("models/line/load", {"parameters": 1}),
        ("models/line/unload", {"parameters": {"unload_dependents": 1}}),
        ("models/line/unload", {"parameters": {"x": True}}),
        ("models/line/unload", []),
        ("index", {"ready": 1}),
        ("index", []),
    ],
)
def test_the_repository_takes_no_content_and_no_configuration(line: TestClient, path: str, body: Any) -> None:
    assert is_error(line.post(f"/v2/repository/{path}", json=body), 400)
    assert line.get("/v2/models/line/ready").status_code == 200


def test_statistics_count_both_doors(fresh: TestClient) -> None:
    fresh.post("/v2/models/line/infer", json={"inputs": [row(1, 2, 3)]})
    fresh.post("/predict/line", json={"inputs": [[1]]})
    fresh.post("/v2/models/line/infer", json={"inputs": [row(1, name="x")]})
    (stats,) = fresh.get("/v2/models/line/stats").json()["model_stats"]
    assert (stats["name"], stats["version"]) == ("line", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (4, 2)
    assert stats["last_inference"] > 1_700_000_000_000
    parts = stats["inference_stats"]
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert parts.keys() == {"success", "fail", "cache_hit", "cache_miss", *stages}
    assert parts["success"]["count"] == 2
    assert parts["fail"]["count"] == 1
    assert all(parts[stage]["count"] == 2 for stage in stages)
    assert parts["success"]["ns"] >= sum(parts[stage]["ns"] for stage in stages) - 2 > 0
    assert fresh.get("/v2/models/stats").json()["model_stats"] == [stats]
    assert fresh.get("/v2/models/line/versions/1/stats").json()["model_stats"] == [stats]


def test_every_outcome_is_counted(fresh: TestClient) -> None:
    fresh.post("/v2/models/line/infer", json={"inputs": [row(1)]})
    fresh.post("/v2/models/line/infer", content=b"x")
    text = fresh.get("/metrics").text
    assert 'torchloop_requests_total{model="line",status="200"} 1.0' in text
    assert 'torchloop_requests_total{model="line",status="400"} 1.0' in text


def test_keys_are_asked_for_in_the_words_of_the_protocol(tmp_path: Path) -> None:
    save_line(tmp_path)
    keys = (Key(scope="predict", secret="p"), Key(scope="admin", secret="a"))  # noqa: S106
    with serving(tmp_path, {"line": LINE}, api_keys=keys) as client:
        predict, admin = ({"authorization": f"Bearer {secret}"} for secret in "pa")
        body = {"inputs": [row(1)]}
        assert is_error(client.post("/v2/models/line/infer", json=body), 401, "send a key")
        assert is_error(client.get("/v2"), 401)
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post("/v2/models/line/infer", json=body, headers=predict).status_code == 200
        assert client.post("/v2/repository/index", headers=predict).status_code == 200
        for action in ("unload", "load"):
            path = f"/v2/repository/models/line/{action}"
            assert is_error(client.post(path, headers=predict), 403, "scope admin")
            assert client.post(path, headers=admin).status_code == 200


def test_the_scopes_of_v2() -> None:
    assert TABLE.scope("GET", "/v2/health/live") is None
    assert TABLE.scope("POST", "/v2/models/line/versions/1/infer") == "predict"
    assert TABLE.scope("GET", "/v2/models/line") == "predict"
    assert TABLE.scope("POST", "/v2/repository/models/line/load") == "admin"
    assert TABLE.scope("POST", "/v2/anything/else") == "admin"
