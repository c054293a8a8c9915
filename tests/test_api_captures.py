"""Captures over HTTP: settings, what is captured by each address, the list, pictures and erasure."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor, nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.mnist import drawn_seven
from models.outputs import Value, describe_values, values
from models.signature import Picture, Text
from models.spec import Array, ModelSpec
from service.settings import Key
from tests.capturing import capturing
from tests.fakes import LINE, save_line
from tests.serving import npy, png, serving
from tests.waiting import until

ALL = {"rate": 1.0}
SIDE = 64


class Pair(nn.Module):
    """The difference of two pictures: uint8 (N, 64, 64) twice, int64 (N,) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, left: Tensor, right: Tensor, words: Tensor) -> Tensor:
        gap = (left.float() - right.float()).mean(dim=(1, 2)) + words
        outputs: Tensor = gap[:, None] * self.scale
        return outputs


def grey(picture: Image.Image) -> Array:
    """Read a picture as uint8 (64, 64)."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE)))


def counted(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The network gets the number of words."""
    return {"left": sample["left"], "right": sample["right"], "words": np.int64(len(sample["note"].split()))}


BLANK = np.zeros((SIDE, SIDE), np.uint8)
PAIR = ModelSpec(
    summary="how different two pictures are",
    network=Pair,
    inputs={"left": Picture(grey, (SIDE, SIDE)), "right": Picture(grey, (SIDE, SIDE)), "note": Text()},
    encode=counted,
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"left": Image.fromarray(BLANK), "right": Image.fromarray(BLANK), "note": "blank"}],
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with capturing(tmp_path_factory.mktemp("shipped"), originals=True) as client:
        yield client


def captured(client: TestClient, prediction: str) -> Any:
    """What is captured of a prediction, once it is written."""

    def found() -> Any:
        answer = client.get(f"/predictions/{prediction}")
        return answer.json() if answer.status_code == 200 else None

    return until(found)


def predicted(client: TestClient, path: str = "/predict/line", **request: Any) -> str:
    answer = client.post(path, **(request or {"json": {"inputs": [[3.0]]}}))
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-prediction-id"])


def test_settings_are_read_and_replaced(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        before = client.get("/models/line/capture").json()
        assert before == {
            "model": "line",
            "rate": 0.0,
            "max_examples": 10_000,
            "max_bytes": 268_435_456,
            "days": 30.0,
            "originals": False,
            "examples": 0,
            "bytes": 0,
        }
        changed = {"rate": 0.25, "max_examples": 5, "max_bytes": 1000, "days": 1.5, "originals": True}
        assert client.put("/models/line/capture", json=changed).json() == {**before, **changed}
        assert client.put("/models/line/capture", json=ALL).json() == {**before, **ALL}
        assert client.get("/models/line/capture").json()["rate"] == 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "rate: Field required"),
        ({"rate": 1.5}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": 0.1, "days": 0}, "days"),
        ({"rate": 0.1, "max_examples": 0}, "max_examples"),
        ({"rate": 0.1, "max_bytes": 1.0}, "whole number"),
        ({"rate": 0.1, "original": True}, "did you mean originals?"),
    ],
)
def test_bad_settings_are_refused(client: TestClient, body: dict[str, Any], words: str) -> None:
    answer = client.put("/models/line/capture", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_an_unknown_model_is_404_everywhere(client: TestClient) -> None:
    found = [
        client.get("/models/none/capture"),
        client.put("/models/none/capture", json=ALL),
        client.get("/models/none/captures"),
        client.delete("/models/none/captures", params={"key": "a"}),
    ]
    assert [answer.status_code for answer in found] == [404] * 4


def test_a_request_of_the_fast_path_is_captured_with_its_key_input_and_answer(client: TestClient) -> None:
    prediction = predicted(client, json={"inputs": [[3.0], [-1.5]]}, headers={"X-Prediction-Key": "order 7"})
    found = captured(client, prediction)
    assert (found["model"], found["version"], found["key"], found["backend"]) == ("line", 1, "order 7", "onnxruntime")
    assert found["media_type"] == "application/json"
    assert len(found["code"]) == 64
    assert found["sha256"] == client.get("/models/line/versions/1").json()["sha256"]
    samples = [(one["index"], one["inputs"], one["answer"], one["said"]) for one in found["samples"]]
    assert samples == [(0, [3.0], [7.0], {"": {"value": 7.0}}), (1, [-1.5], [-2.0], {"": {"value": -2.0}})]


def test_a_picture_is_captured_as_the_network_sees_it_and_as_it_came(client: TestClient) -> None:
    content = png(drawn_seven())
    prediction = predicted(client, "/predict/mnist", content=content, headers={"content-type": "image/png"})
    (sample,) = captured(client, prediction)["samples"]
    assert sample["inputs"] == drawn_seven().tolist()
    assert (sample["said"][""]["label"], sample["original"]) == (7, True)
    shown = client.get(sample["picture"])
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_picture_file_is_read_back_as_it_came_if_it_is_kept(client: TestClient) -> None:
    content = png(drawn_seven())
    kept = predicted(client, "/predict/mnist", content=content, headers={"content-type": "image/png"})
    numbers = predicted(client, "/predict/mnist", json={"inputs": [drawn_seven().tolist()]})
    captured(client, numbers)
    found = client.get(f"/models/mnist/captures/{kept}/0/original")
    assert (found.headers["content-type"], found.content) == ("image/png", content)
    assert found.headers["content-security-policy"].startswith("default-src 'none'")
    assert found.headers["x-content-type-options"] == "nosniff"
    missing = client.get(f"/models/mnist/captures/{numbers}/0/original")
    assert (missing.status_code, "is not kept: set `originals`" in missing.json()["detail"]) == (404, True)
    page = client.get("/models/mnist/captures").json()["captures"]
    listed = {one["id"]: one["original"] for one in page}
    assert (listed[kept], listed[numbers]) == (True, False)


def test_named_inputs_are_shown_without_large_ones_and_each_picture_has_its_address(tmp_path: Path) -> None:
    sha256 = state_dict.save_weights(Pair().state_dict(), tmp_path / "two.pt")
    state_dict.save_record(Record(model="two", sha256=sha256), tmp_path / "two.pt")
    with serving(tmp_path, {"two": PAIR}) as client:
        client.put("/models/two/capture", json=ALL)
        pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
        files = [("left", png(pixels)), ("right", png(255 - pixels))]
        prediction = predicted(client, "/predict/two", files=[*files, ("note", ("", b"a pair"))])
        captured(client, prediction)
        (sample,) = client.get("/models/two/captures").json()["captures"]
        assert sample["inputs"] == {"note": "a pair"}
        assert list(sample["pictures"]) == ["left", "right"]
        assert sample["picture"] == sample["pictures"]["left"]
        shown = [np.asarray(Image.open(io.BytesIO(client.get(path).content))) for path in sample["pictures"].values()]
        assert np.array_equal(shown[0], pixels)
        assert np.array_equal(shown[1], 255 - pixels)
        answer = client.get(f"/models/two/captures/{prediction}/0/picture.png", params={"input": "note"})
        assert (answer.status_code, "its pictures are left, right" in answer.json()["detail"]) == (404, True)


def test_each_file_of_a_form_is_kept_with_its_sample(client: TestClient) -> None:
    files = [
        ("file", ("a.png", png(drawn_seven()))),
        ("file", ("b.png", b"no picture")),
        ("file", ("c.png", png(drawn_seven()))),
    ]
    prediction = predicted(client, "/predict/mnist", files=files)
    found = captured(client, prediction)["samples"]
    assert [(one["index"], one["original"]) for one in found] == [(0, True), (2, True)]


def test_numbers_have_no_original_and_no_picture(client: TestClient) -> None:
    content = npy(np.array([[2.0]], np.float32))
    prediction = predicted(client, content=content, headers={"content-type": "application/x-npy"})
    (sample,) = captured(client, prediction)["samples"]
    assert (sample["original"], sample["picture"]) == (False, None)
    answer = client.get(f"/models/line/captures/{prediction}/0/picture.png")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"sample 0 of prediction {prediction} is no picture")


def test_v2_and_a_version_by_its_number_are_captured_too(client: TestClient) -> None:
    tensor = {"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [4]}]}
    for prediction in (
        predicted(client, "/v2/models/line/infer", json=tensor),
        predicted(client, "/predict/line?version=1", json={"inputs": [[4.0]]}),
    ):
        assert captured(client, prediction)["samples"][0]["answer"] == [9.0]


def test_x_capture_no_wins_and_a_key_that_is_too_long_is_not_kept(client: TestClient) -> None:
    refused = predicted(client, json={"inputs": [[1.0]]}, headers={"X-Capture": "no"})
    kept = predicted(client, json={"inputs": [[1.0]]}, headers={"X-Prediction-Key": "a" * 201})
    assert captured(client, kept)["key"] is None
    answer = client.get(f"/predictions/{refused}")
    assert answer.status_code == 404
    assert "X-Capture: no" in answer.json()["detail"]


def test_a_rate_of_zero_ends_the_capture_at_once(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        client.put("/models/line/capture", json=ALL)
        before = predicted(client)
        client.put("/models/line/capture", json={"rate": 0})
        after = predicted(client)
        assert captured(client, before)["samples"]
        answer = client.get(f"/predictions/{after}")
        assert (answer.status_code, "no model's answers are captured" in answer.json()["detail"]) == (404, True)
        text = client.get("/metrics").text
        assert 'torchloop_captures_total{model="line",outcome="captured"} 1.0' in text


def test_the_list_is_paged_and_shows_feedback(client: TestClient) -> None:
    keys = [f"page {number}" for number in range(3)]
    ids = [predicted(client, json={"inputs": [[1.0]]}, headers={"X-Prediction-Key": key}) for key in keys]
    captured(client, ids[-1])
    client.post("/models/line/feedback", json={"feedback": [{"id": ids[1], "truth": 2.5, "kind": "audit"}]})
    page = client.get("/models/line/captures", params={"limit": 2}).json()
    assert [one["id"] for one in page["captures"]] == [ids[2], ids[1]]
    (told,) = page["captures"][1]["feedback"]
    assert (told["truth"], told["kind"], told["error"], told["was_right"]) == (2.5, "audit", 0.5, None)
    following = client.get("/models/line/captures", params={"limit": 2, "cursor": page["cursor"]}).json()
    assert following["captures"][0]["id"] == ids[0]
    unlabelled = client.get("/models/line/captures", params={"unlabelled": True, "order": "random"}).json()["captures"]
    assert ids[1] not in {one["id"] for one in unlabelled} >= {ids[0], ids[2]}
    for wrong in ({"limit": 0}, {"order": "oldest"}, {"cursor": "x"}, {"version": 0}, {"cursor": "1_2"}):
        assert client.get("/models/line/captures", params=wrong).status_code == 422


def test_an_erased_sample_is_gone_and_its_id_says_so(client: TestClient) -> None:
    prediction = predicted(client, json={"inputs": [[5.0]]}, headers={"X-Prediction-Key": "erase me"})
    captured(client, prediction)
    answer = client.delete("/models/line/captures", params={"key": "erase me"})
    assert (answer.status_code, answer.json()) == (202, {"erased": 1, "in_datasets": [], "trained": []})
    (sample,) = client.get(f"/predictions/{prediction}").json()["samples"]
    assert (sample["inputs"], sample["answer"], sample["said"]) == (None, None, None)
    assert sample["erased_at"] is not None
    assert client.get(f"/models/line/captures/{prediction}/0/picture.png").status_code == 404
    assert client.post(f"/predictions/{prediction}/replay").status_code == 404


def test_an_erasure_is_by_one_of_id_key_and_time(client: TestClient) -> None:
    for wrong in ({}, {"key": "a", "before": "2026-01-01"}, {"id": "x"}, {"before": "yesterday"}, {"key": "ü"}):
        assert client.delete("/models/line/captures", params=wrong).status_code == 422
    answer = client.delete("/models/line/captures", params={"before": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["erased"]) == (202, 0)


def test_settings_need_an_admin_and_samples_a_trainer(tmp_path: Path) -> None:
    save_line(tmp_path)
    keys = tuple(Key(scope=scope, secret=scope) for scope in ("predict", "train", "admin"))
    with serving(tmp_path, {"line": LINE}, api_keys=keys) as client:
        asked = [
            ("PUT", "/models/line/capture"),
            ("GET", "/models/line/captures"),
            ("DELETE", "/models/line/captures?key=a"),
        ]
        statuses = {
            scope: [
                client.request(
                    method, path, json=ALL if method == "PUT" else None, headers={"Authorization": f"Bearer {scope}"}
                ).status_code
                for method, path in asked
            ]
            for scope in ("predict", "train", "admin")
        }
    assert statuses == {"predict": [403, 403, 403], "train": [403, 200, 202], "admin": [200, 200, 202]}
