"""Captures, feedback, accuracy and replay by the client and its commands."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.client import Client, NotFound, retrain_command
from service.client import __main__ as command
from service.client.clients import Client as Made
from service.execution.recipes import RecipeSchema
from tests.fakes import LINE, save_line
from tests.serving import BASE_URL, LINE_RECIPE, over, serving
from tests.waiting import until


async def recipes() -> Mapping[str, RecipeSchema]:
    """Return the recipe of `line`, which learns values and has data of its own."""
    return {"line": replace(LINE_RECIPE, target="value", built_in={"lines": {"train": 8}})}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("shipped")
    save_line(folder)
    with serving(folder, {"line": LINE}, recipes) as app:
        yield app


@pytest.fixture
def client(app: TestClient) -> Client:
    client = Client(BASE_URL, transport=over(app))
    client.set_capture("line", 1.0, days=7)
    return client


@pytest.fixture
def run(app: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words -> exit status, standard output, standard error."""
    monkeypatch.setattr(command, "Client", lambda url, **options: Made(url, transport=over(app), **options))

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = command.main(words, {"TORCHLOOP_URL": BASE_URL})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def predicted(app: TestClient, key: str = "") -> str:
    headers = {"X-Prediction-Key": key} if key else {}
    answer = app.post("/predict/line", json={"inputs": [[3.0]]}, headers=headers).json()
    until(lambda: app.get(f"/predictions/{answer['id']}").status_code == 200)
    return str(answer["id"])


def test_settings_are_set_and_read(client: Client) -> None:
    found = client.set_capture("line", 1.0, max_examples=50, originals=True)
    assert (found["rate"], found["max_examples"], found["days"], found["originals"]) == (1.0, 50, 30.0, True)
    assert client.capture("line")["max_examples"] == 50


def test_an_answer_is_traced_corrected_counted_and_computed_again(client: Client, app: TestClient) -> None:
    identity = predicted(app)
    assert client.prediction(identity)["samples"][0]["inputs"] == [3.0]
    assert client.feedback(identity, 6.5) == [{"accepted": True, "matched": "captured", "error": None, "current": None}]
    results = client.send_feedback("line", [{"id": identity, "truth": 6.0, "kind": "audit"}, {"truth": 1}])
    assert [one["accepted"] for one in results] == [True, False]
    assert client.replay(identity)["same"]
    assert client.accuracy("line", 1, window="1h")["labelled"] >= 1
    page = client.captures("line", order="random", limit=200)
    assert identity in {one["id"] for one in page["captures"]}
    assert identity not in {one["id"] for one in client.captures("line", unlabelled=True)["captures"]}


def test_a_prediction_that_was_not_captured_needs_its_model(client: Client, app: TestClient) -> None:
    answer = app.post("/predict/line", json={"inputs": [[1.0]]}, headers={"X-Capture": "no"}).json()
    with pytest.raises(NotFound, match="X-Capture: no"):
        client.feedback(answer["id"], 1.0)
    (result,) = client.feedback(answer["id"], 1.0, model="line", by="me")
    assert result["accepted"]


def test_samples_are_erased(client: Client, app: TestClient) -> None:
    identity = predicted(app, "mine")
    assert client.erase_captures("line", key="mine") == {"erased": 1, "in_datasets": [], "trained": []}
    assert client.erase_captures("line", prediction=identity)["erased"] == 0
    assert client.erase_captures("line", before="2020-01-01")["erased"] == 0


def test_the_commands_tell_a_truth_and_what_follows(client: Client, app: TestClient, run: Any) -> None:
    identity = predicted(app, "order 7")
    assert run("feedback", identity, "--truth", "6.5") == (0, "accepted, matched: captured\n", "")
    status, _, err = run("feedback", identity, "--truth", "cat", "--model", "line")
    assert (status, "must be a finite number" in err) == (1, True)
    run("feedback", identity, "--truth", "6", "--kind", "audit", "--by", "expert")
    status, out, _ = run("captures", "line", "--limit", "1")
    assert (status, out.splitlines()[0].split()) == (0, ["id", "index", "at", "key", "answer", "truth"])
    assert out.splitlines()[1].endswith("order 7  7       6.5 (correction), 6 (audit)")
    same = "version 1 of line: the same to the bit (onnxruntime fp32, now onnxruntime fp32)\n"
    assert run("replay", identity)[:2] == (0, same)
    status, out, _ = run("accuracy", "line", "1", "--window", "30m")
    assert "captured answers are labelled by audits and outcomes" in out
    assert "corrections, which are no measure of accuracy" in out
    assert json.loads(run("accuracy", "line", "1", "--json")[1])["window"] == "1d"


def test_the_commands_set_and_show_what_is_captured(client: Client, run: Any) -> None:
    status, out, _ = run("capture", "line", "--rate", "0.5", "--days", "7", "--max-examples", "9", "--originals")
    first = "line: 0.5 of the requests, picture files as they came; kept are at most 9 samples, 268435456 bytes, 7 days"
    assert (status, out.splitlines()[0]) == (0, first)
    assert run("capture", "line")[1] == out
    with pytest.raises(SystemExit):
        run("capture", "line", "--days", "3")


def test_the_command_erases(client: Client, app: TestClient, run: Any) -> None:
    identity = predicted(app)
    assert run("erase", "line", "--prediction", identity)[:2] == (0, "1 samples erased\n")
    with pytest.raises(SystemExit):
        run("erase", "line")


def test_a_command_about_an_unknown_prediction_names_the_way_out(run: Any) -> None:
    status, _, err = run("feedback", "1a0c4506c00-5f3a9c1d-1-1", "--truth", "1")
    assert (status, "Name the model with --model" in err) == (1, True)


def test_the_commands_print_other_outcomes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    estimate = {"value": 0.95, "low": 0.9, "high": 0.98, "labelled": 100}
    answers: dict[str, Any] = {
        "/predictions/i/replay": {
            "id": "i",
            "model": "m",
            "version": 2,
            "same": False,
            "greatest_difference": 1e-7,
            "backend": {"then": "eager", "now": "onnxruntime"},
            "form": {"then": None, "now": "bf16"},
            "same_code": False,
            "samples": [],
        },
        "/models/m/versions/2/accuracy": {
            "labelled": 100,
            "captured": 1000,
            "accuracy": estimate,
            "error": None,
            "expected": {"accuracy": 0.99, "valid": False, "reason": "few"},
            "corrections": {"count": 0, "right": 0},
        },
        "/models/m/captures": {"erased": 2, "in_datasets": ["field@2"], "trained": [3]},
    }

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[request.url.path])

    monkeypatch.setattr(command, "Client", lambda url, **_: Made(url, transport=httpx.MockTransport(handle)))
    for labels, status in (([None], 1), ([True, True], 0), ([True, False], 1), ([False], 1), ([None, True], 0)):
        answers["/predictions/i/replay"]["samples"] = [{"same_label": label} for label in labels]
        assert command.main(["replay", "i"], {"TORCHLOOP_URL": "http://host"}) == status
    answers["/predictions/i/replay"]["samples"] = []
    capsys.readouterr()
    said = {}
    for words in (["replay", "i"], ["accuracy", "m", "2"], ["erase", "m", "--prediction-key", "k"]):
        status = command.main(words, {"TORCHLOOP_URL": "http://host"})
        said[words[0]] = status, capsys.readouterr().out
    assert said["replay"] == (
        1,
        "version 2 of m: differs by at most 1e-07 (eager, now onnxruntime bf16; the model's code has changed)\n",
    )
    assert said["accuracy"][1].splitlines() == [
        "accuracy 0.95, 95% interval 0.9 to 0.98",
        "100 of 1000 captured answers are labelled by audits and outcomes",
        "expected, but not valid by the answers' own confidence: 0.99 (few)",
    ]
    assert said["erase"][1].splitlines() == [
        "2 samples erased",
        "in datasets, which are not changed: field@2",
        "versions trained on these: 3",
    ]


def test_retraining_is_set_shown_and_ended(client: Client, run: Any) -> None:
    found = client.set_retrain("line", corrections=200, every="P7D", dataset="lines", weight=20, promote="never")
    assert (found["corrections"], found["every"], found["weight"], found["promote"]) == (200, "P7D", 20, "never")
    assert client.retrain("line") == found
    said = "line is retrained after 200 corrections and every P7D; at most every PT6H, on lines, promote never"
    assert run("retrain", "line")[1].splitlines()[0] == said
    said = "line is retrained after 7 corrections and on drift; at most every PT1H, on lines, promote trial"
    words = ("--corrections", "7", "--on-drift", "--at-most-every", "PT1H", "--dataset", "lines")
    assert run("retrain", "line", *words)[1].splitlines()[0] == said
    assert run("retrain", "line", "--off")[1].splitlines()[0] == "line is not retrained"
    status, _, err = run("retrain", "line", "--corrections", "7")
    assert (status, "line has no dataset line" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--off", "--corrections", "7"), "--off goes with no other option"),
        (("--weight", "7"), "settings are replaced as a whole"),
    ],
)
def test_retraining_options_that_do_not_go_together(
    run: Any, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit):
        run("retrain", "line", *words)
    assert said in capsys.readouterr().err


def test_a_job_is_shown_that_could_not_be_queued(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"model": "m", "corrections": 1, "every": None, "on_drift": False, "at_most_every": "PT6H", "dataset": "m"}
    told |= {"promote": "trial", "new_corrections": 3, "new_feedback": 4, "job": "j", "reason": "1 new corrections"}
    retrain_command.show({**told, "fault": "the dataset is gone"})  # type: ignore[typeddict-item]
    assert capsys.readouterr().out.splitlines()[1:] == [
        "3 new corrections, 4 new truths in all",
        "last: job j, 1 new corrections",
        "not queued: the dataset is gone",
    ]


def test_a_job_learns_from_feedback(client: Client, app: TestClient, run: Any) -> None:
    client.feedback(predicted(app), 6.5)
    job = client.submit("line", dataset="lines", feedback={"since": "P1D", "weight": 5})
    assert job["feedback"] == {"dataset": "lines", "since": "P1D", "weight": 5}
    status, out, err = run("submit", "line", "--feedback-since", "P7D", "--feedback-weight", "3", "--json")
    assert status == 0, err
    assert json.loads(out)["feedback"] == {"dataset": "lines", "since": "P7D", "weight": 3}
    job = client.train("line", feedback={})
    assert job["feedback"] == {"dataset": "lines", "since": None, "weight": 1}
