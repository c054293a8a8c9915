"""Feedback and accuracy over HTTP."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from service.settings import Key
from tests.capturing import capturing
from tests.fakes import LINE, save_line
from tests.line_versions import upload
from tests.serving import png, serving
from tests.waiting import until


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with capturing(tmp_path_factory.mktemp("shipped")) as client:
        yield client


def told(client: TestClient, *entries: Any, model: str = "line") -> list[Any]:
    body = json.dumps({"feedback": entries})  # in ASCII: a lone surrogate can be sent
    answer = client.post(f"/models/{model}/feedback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    results: list[Any] = answer.json()["results"]
    return results


def seven(client: TestClient) -> str:
    """The id of a captured prediction of a seven."""
    answer = client.post("/predict/mnist", content=png(drawn_seven()), headers={"content-type": "image/png"})
    assert answer.json()["predictions"][0]["label"] == 7
    prediction = str(answer.json()["id"])
    until(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
    return prediction


def line(client: TestClient, values: Sequence[float], **headers: str) -> str:
    answer = client.post("/predict/line", json={"inputs": [[value] for value in values]}, headers=headers)
    return str(answer.json()["id"])


def test_a_label_is_matched_with_its_capture_and_compared(client: TestClient) -> None:
    prediction = seven(client)
    results = told(
        client, {"id": prediction, "truth": "1"}, {"id": prediction, "truth": 7, "kind": "audit"}, model="mnist"
    )
    assert results == [{"accepted": True, "matched": "captured", "error": None, "current": None}] * 2
    (sample,) = client.get(f"/predictions/{prediction}").json()["samples"]
    assert [(one["truth"], one["kind"], one["by"], one["was_right"]) for one in sample["feedback"]] == [
        (1, "correction", "anyone", False),
        (7, "audit", "anyone", True),
    ]


def test_each_entry_fails_alone_and_says_why(client: TestClient) -> None:
    prediction = seven(client)
    wrong: list[tuple[Any, str]] = [
        ({"id": prediction, "truth": 10}, "'10' is none of the model's labels: 0, 1"),
        ({"id": prediction, "truth": None}, "must be a label"),
        ({"id": prediction}, "truth: Field required"),
        ({"truth": 1}, "give one of id and key"),
        ({"id": prediction, "key": "a", "truth": 1}, "give one of id and key"),
        ({"id": "17", "truth": 1}, "id: must be the id of an answer, such as 0199d2c4f1a-5f3a9c1d-2b-4"),
        ({"key": "a" * 201, "truth": 1}, "key: must have 1 to 200 printable ASCII characters"),
        ({"id": prediction, "truth": 1, "index": -1}, "index"),
        ({"id": prediction, "truth": 1, "kind": "guess"}, "kind"),
        ({"id": prediction, "truth": 1, "label": 2}, "label is not a field"),
        ({"id": prediction.rpartition("-")[0] + "-99", "truth": 1}, "mnist has no version 99"),
        ({"id": prediction, "truth": "\ud800"}, "lone surrogate"),
        ({"id": prediction, "truth": 1, "by": "\ud800"}, "by: "),
        ("7", "must be a JSON object"),
        (None, "must be a JSON object"),
    ]
    *refused, good = told(client, *(entry for entry, _ in wrong), {"id": prediction, "truth": 2}, model="mnist")
    for (entry, words), result in zip(wrong, refused, strict=True):
        assert not result["accepted"], entry
        assert words in result["error"]["detail"], entry
    assert good["accepted"]


def test_an_entry_that_is_not_to_replace_another_is_refused_with_what_stands(client: TestClient) -> None:
    prediction = seven(client)
    first, again, other = ({"id": prediction, "truth": truth, "kind": "audit", "replace": False} for truth in (1, 1, 2))
    kept = told(client, first, again, {**other, "kind": "correction"}, model="mnist")
    assert [(one["accepted"], one["current"]) for one in kept] == [(True, None)] * 3
    (refused,) = told(client, other, model="mnist")
    assert refused["error"]["title"] == "Already told"
    assert 'its audit says 1: send "replace": true' in refused["error"]["detail"]
    assert (refused["accepted"], refused["current"]["truth"], refused["current"]["kind"]) == (False, 1, "audit")
    assert told(client, {**other, "replace": True}, model="mnist")[0]["accepted"]
    (sample,) = client.get(f"/predictions/{prediction}").json()["samples"]
    audits = [one for one in sample["feedback"] if one["kind"] == "audit"]
    assert [(one["truth"], one["replaced_at"] is None) for one in audits] == [(1, False), (2, True)]


def test_the_form_of_a_truth_names_labels_or_says_that_it_is_a_number(client: TestClient) -> None:
    part: dict[str, Any] = {"name": "", "kind": "label", "labels": list(range(10)), "shape": []}
    assert client.get("/models/mnist/feedback").json() == {"model": "mnist", "outputs": [part]}
    part = {"name": "", "kind": "value", "labels": None, "shape": []}
    assert client.get("/models/line/feedback").json() == {"model": "line", "outputs": [part]}
    assert client.get("/models/none/feedback").status_code == 404


def test_a_truth_about_another_models_answer_is_refused(client: TestClient) -> None:
    (result,) = told(client, {"id": seven(client), "truth": 1.0})
    assert "another model" in result["error"]["detail"]


def test_entries_by_key_come_before_their_capture_or_after(client: TestClient) -> None:
    assert told(client, {"key": "early", "truth": 1.0})[0]["matched"] == "not yet"
    prediction = line(client, [1.0], **{"X-Prediction-Key": "early"})
    (sample,) = until(lambda: client.get(f"/predictions/{prediction}").json().get("samples"))
    assert [(one["truth"], one["error"]) for one in sample["feedback"]] == [(1.0, 2.0)]
    assert told(client, {"key": "early", "truth": 2.5})[0]["matched"] == "captured"


@pytest.mark.parametrize("body", [{}, {"feedback": []}, {"feedback": [{}] * 1001}, {"feedback": {}}, {"entries": []}])
def test_a_body_has_one_to_a_thousand_entries(client: TestClient, body: Any) -> None:
    assert client.post("/models/line/feedback", json=body).status_code == 422


def test_an_unknown_model_or_version_is_404(client: TestClient) -> None:
    assert client.post("/models/none/feedback", json={"feedback": [{}]}).status_code == 404
    assert client.get("/models/none/versions/1/accuracy").status_code == 404
    assert client.get("/models/line/versions/9/accuracy").status_code == 404


@pytest.mark.parametrize("window", ["", "1", "0d", "1w", "-1d", "99999d", "1.5h"])
def test_a_window_is_minutes_hours_or_days(client: TestClient, window: str) -> None:
    assert client.get("/models/line/versions/1/accuracy", params={"window": window}).status_code == 422


def test_the_accuracy_of_a_version_is_that_of_its_labelled_answers(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        client.put("/models/line/capture", json={"rate": 1.0})
        prediction = line(client, [1.0, 2.0, 3.0, 4.0])
        until(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
        audits = [{"id": prediction, "index": at, "truth": truth, "kind": "audit"} for at, truth in ((0, 3), (1, 6))]
        told(client, *audits, {"id": prediction, "index": 2, "truth": 0})
        found = client.get("/models/line/versions/1/accuracy", params={"window": "1h"}).json()
        assert (found["captured"], found["labelled"], found["share_labelled"]) == (4, 2, 0.5)
        assert (found["error"]["value"], found["error"]["labelled"], found["accuracy"]) == (0.5, 2, None)
        assert found["corrections"] == {"count": 1, "right": 0}
        assert (found["expected"], len(found["points"])) == (None, 12)
        assert upload(client, 3.0) == 2
        assert client.get("/models/line/versions/2/accuracy").json()["captured"] == 0


def test_the_expected_accuracy_is_the_mean_confidence(client: TestClient) -> None:
    seven(client)
    found = client.get("/models/mnist/versions/1/accuracy").json()
    assert 0.9 < found["expected"]["accuracy"] <= 1
    assert found["expected"]["valid"]
    assert "calibration_error" in found["expected"]["reason"]
    assert "Infinity" not in client.get("/models/mnist/versions/1/accuracy").text


def test_a_caller_may_correct_and_a_trainer_audits(tmp_path: Path) -> None:
    save_line(tmp_path)
    keys = tuple(Key(scope=scope, secret=scope) for scope in ("predict", "train", "admin"))
    with serving(tmp_path, {"line": LINE}, api_keys=keys) as client:
        entries = [{"key": "a", "truth": 1, "kind": kind} for kind in ("correction", "audit", "outcome")]
        found = {
            scope: [
                result["accepted"]
                for result in client.post(
                    "/models/line/feedback",
                    json={"feedback": entries},
                    headers={"Authorization": f"Bearer {scope}"},
                ).json()["results"]
            ]
            for scope in ("predict", "train")
        }
    assert found == {"predict": [True, False, True], "train": [True, True, True]}
