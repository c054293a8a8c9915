"""Replay: captured predictions, computed again by the version that answered."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.checkpoints.storage import Storage
from models.checkpoints.verdict import Verdict
from models.mnist import drawn_seven
from models.outputs import Value, describe_values, values
from models.packed_rows import packed_row
from models.signature import Number
from models.spec import ModelSpec
from service.inference.backends import choice, onnx
from service.inference.backends.forms import Forms, Run
from tests import capturing
from tests.fakes import LINE, Line
from tests.line_versions import promote, upload
from tests.serving import png
from tests.waiting import until

NAMED = ModelSpec(
    summary="2x + 1, named",
    network=Line,
    inputs={"samples": Number(), "note": Number(default=float("nan"))},
    encode=lambda sample: {"samples": [sample["samples"]]},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"samples": 3.0, "note": None}],
)
SPECS = {**capturing.SPECS, "named": NAMED}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def client(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with capturing.capturing(tmp_path_factory.mktemp("shipped"), SPECS, store=store, form="fp32") as client:
        yield client


def captured(client: TestClient, model: str, **request: Any) -> str:
    answer = client.post(f"/predict/{model}", **request)
    assert answer.status_code == 200, answer.text
    prediction = str(answer.json()["id"])
    until(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
    return prediction


def replayed(client: TestClient, prediction: str) -> Any:
    answer = client.post(f"/predictions/{prediction}/replay")
    assert answer.status_code == 200, answer.text
    return answer.json()


def change(store: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(Storage(store).database)) as connection, connection:
        connection.execute(statement, values)


REQUESTS: dict[str, Callable[[], dict[str, Any]]] = {
    "line": lambda: {"json": {"inputs": [[0.1], [-7.25], [1e30]]}},
    "named": lambda: {"json": {"inputs": [{"samples": 0.1}, {"samples": 2, "note": 3}]}},
    "mnist": lambda: {"content": png(drawn_seven()), "headers": {"content-type": "image/png"}},
}


@pytest.mark.parametrize("model", REQUESTS)
def test_a_prediction_is_the_same_to_the_bit(client: TestClient, model: str) -> None:
    prediction = captured(client, model, **REQUESTS[model]())
    found = replayed(client, prediction)
    assert (found["same"], found["greatest_difference"], found["same_code"]) == (True, 0.0, True)
    assert found["backend"]["then"] == found["backend"]["now"]
    assert found["form"] == {"then": "fp32", "now": "fp32"}
    assert client.get(f"/predictions/{prediction}").json()["form"] == "fp32"
    assert all(sample["same"] for sample in found["samples"])


def test_named_values_are_kept_as_they_were_given(client: TestClient) -> None:
    prediction = captured(client, "named", **REQUESTS["named"]())
    samples = client.get(f"/predictions/{prediction}").json()["samples"]
    assert [one["inputs"] for one in samples] == [{"samples": 0.1, "note": None}, {"samples": 2.0, "note": 3.0}]


def test_the_version_that_answered_computes_it_again_whatever_is_live(client: TestClient) -> None:
    prediction = captured(client, "line", json={"inputs": [[2.0]]})
    assert promote(client, upload(client, 5.0)).status_code == 200
    assert client.post("/predict/line", json={"inputs": [[2.0]]}).json()["predictions"] == [{"value": 11.0}]
    found = replayed(client, prediction)
    assert (found["version"], found["same"]) == (1, True)
    promote(client, 1)


def test_other_numbers_backends_and_code_are_named(client: TestClient, store: Path) -> None:
    prediction = captured(client, "line", json={"inputs": [[2.0], [3.0]]})
    answer = packed_row({"": np.array([5.25], np.float32)})
    change(
        store,
        "UPDATE captures SET answer = ?, backend = 'eager', code = 'x' WHERE id = ? AND position = 0",
        answer,
        prediction,
    )
    found = replayed(client, prediction)
    assert [(one["same"], one["greatest_difference"]) for one in found["samples"]] == [(False, 0.25), (True, 0.0)]
    assert (found["same"], found["greatest_difference"], found["same_code"]) == (False, 0.25, False)
    assert found["backend"] == {"then": "eager", "now": "onnxruntime"}


def test_an_answer_of_a_version_by_its_number_knows_its_form_too(client: TestClient) -> None:
    prediction = captured(client, "line", json={"inputs": [[2.0]]}, params={"version": 1})
    assert client.get(f"/predictions/{prediction}").json()["form"] == "fp32"


def test_an_older_capture_has_no_form(client: TestClient, store: Path) -> None:
    prediction = captured(client, "line", json={"inputs": [[2.0]]})
    change(store, "UPDATE captures SET form = NULL WHERE id = ?", prediction)
    assert replayed(client, prediction)["form"] == {"then": None, "now": "fp32"}


@pytest.fixture
def of_two_forms(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service that computes batches of four samples and more in bfloat16: 1.25 times the answers."""

    def by_size(plain: Run, *_: Any, **__: Any) -> Run:
        return lambda samples: plain(samples) * np.float32(1.25 if len(samples) >= 4 else 1)

    def faster(plain: Run, _: Any, forms: Forms, **__: Any) -> tuple[Run, Forms]:
        return by_size(plain), replace(forms, steps=((1, "fp32"), (4, "bf16")))

    verdict = Verdict(form="bf16", runtime="openvino 1.2", dataset="d", rows=10)
    monkeypatch.setattr(onnx, "let_in", lambda *_: Forms(verdicts=[verdict]))
    monkeypatch.setattr(onnx, "with_forms", faster)
    monkeypatch.setattr(onnx, "likewise", by_size)
    monkeypatch.setattr(choice, "REST_S", 0.0)
    with capturing.capturing(tmp_path / "shipped", {"line": LINE}, store=tmp_path / "store") as client:
        until(lambda: len(client.get("/models/line").json()["forms"]["steps"]) == 2)
        yield client


@pytest.mark.slow
def test_a_replay_takes_the_form_that_answered(of_two_forms: TestClient, tmp_path: Path) -> None:
    for inputs, form in (([[1.0]], "fp32"), ([[1.0]] * 3, "fp32"), ([[1.0]] * 5, "bf16")):
        prediction = captured(of_two_forms, "line", json={"inputs": inputs})
        found = replayed(of_two_forms, prediction)
        assert (found["form"], found["same"], len(found["samples"])) == ({"then": form, "now": form}, True, len(inputs))
    prediction = captured(of_two_forms, "line", json={"inputs": [[1.0]]})
    with_others = packed_row({"": np.array([3 * 1.25], np.float32)})  # as if it had been in a batch of four
    change(tmp_path / "store", "UPDATE captures SET answer = ?, form = 'bf16' WHERE id = ?", with_others, prediction)
    found = replayed(of_two_forms, prediction)
    assert (found["form"], found["same"], len(found["samples"])) == ({"then": "bf16", "now": "bf16"}, True, 1)


def test_another_form_is_named_with_the_difference(of_two_forms: TestClient, tmp_path: Path) -> None:
    prediction = captured(of_two_forms, "line", json={"inputs": [[1.0]] * 4})
    plain = packed_row({"": np.array([3.0], np.float32)})
    change(tmp_path / "store", "UPDATE captures SET answer = ?, form = 'fp32' WHERE id = ?", plain, prediction)
    found = replayed(of_two_forms, prediction)
    assert found["form"] == {"then": "fp32", "now": "bf16"}
    assert (found["same"], found["greatest_difference"]) == (False, 0.75)


def test_answers_of_another_shape_have_no_difference(client: TestClient, store: Path) -> None:
    prediction = captured(client, "line", json={"inputs": [[2.0]]})
    change(store, "UPDATE captures SET answer = ? WHERE id = ?", packed_row({"": np.zeros(2, np.float32)}), prediction)
    found = replayed(client, prediction)
    assert (found["same"], found["greatest_difference"]) == (False, None)


def test_samples_that_the_code_takes_no_more_are_a_conflict(client: TestClient, store: Path) -> None:
    prediction = captured(client, "named", json={"inputs": [{"samples": 1}]})
    change(store, "UPDATE captures SET content = ? WHERE id = ?", packed_row({"other": 1}), prediction)
    answer = client.post(f"/predictions/{prediction}/replay")
    assert answer.status_code == 409
    assert "has changed since" in answer.json()["detail"]


def test_a_label_that_stayed_is_told(client: TestClient) -> None:
    prediction = captured(client, "mnist", **REQUESTS["mnist"]())
    assert [one["same_label"] for one in replayed(client, prediction)["samples"]] == [True]


def test_what_was_not_captured_is_404_with_the_reason(client: TestClient) -> None:
    prediction = client.post("/predict/line", json={"inputs": [[1.0]]}, headers={"X-Capture": "no"}).json()["id"]
    for answer in (client.get(f"/predictions/{prediction}"), client.post(f"/predictions/{prediction}/replay")):
        assert answer.status_code == 404
        assert "X-Capture: no" in answer.json()["detail"]
    assert client.get("/predictions/17").status_code == 422
    assert client.post("/predictions/17/replay").status_code == 422
