"""Training on feedback, and the settings of retraining, over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.train_schemas import FeedbackChoice
from service.store.database import Store
from tests.dataset_service import VERSIONS, add, detail, made, serving_lines, work
from tests.waiting import until

RETRAIN = "/models/line/retrain"
ORDER = {"model": "line", "dataset": "field", "feedback": {"since": "P7D", "weight": 20}, "promote": "trial"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Store]]:
    """A service with the dataset field@1 of `line`, whose answers are captured; and its store."""
    folder = tmp_path_factory.mktemp("service")
    with serving_lines(folder) as client:
        store = Store(folder / "store")
        add(client, store)
        client.put("/models/line/capture", json={"rate": 1.0})
        yield client, store
        store.close()


def corrected(client: TestClient, x: float) -> str:
    answer = client.post("/predict/line", json={"inputs": [[x]]}).json()
    until(lambda: client.get(f"/predictions/{answer['id']}").status_code == 200)
    entry = {"id": answer["id"], "truth": 3.5}
    (result,) = client.post("/models/line/feedback", json={"feedback": [entry]}).json()["results"]
    assert result["matched"] == "captured"
    return str(answer["id"])


def test_one_call_makes_a_dataset_version_and_trains_on_it(served: tuple[TestClient, Store]) -> None:
    client, store = served
    identity = corrected(client, 1.5)
    answer = client.post("/train", json=ORDER)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["dataset"], job["dataset_sha256"], job["promote"]) == ("field", None, "trial")
    assert job["feedback"] == {"dataset": "field", "since": "P7D", "weight": 20}
    assert job["waits_for"] == f"job {job['after']}, which makes its dataset"
    assert client.get(f"/jobs/{job['after']}").json()["kind"] == "ingest"
    work(store, lambda order: made(order, "c" * 64))
    job = client.get(answer.headers["location"]).json()
    assert (job["dataset"], job["dataset_sha256"], job["after"], job["waits_for"]) == ("field@2", "c" * 64, None, None)
    assert client.get(f"{VERSIONS}/2").json()["parent"] == "field@1"
    erased = client.delete("/models/line/captures", params={"id": identity}).json()
    assert erased == {"erased": 1, "in_datasets": ["field@2"], "trained": []}
    client.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"feedback": {"since": "PT0.001S"}}, 409, "line has no labelled captures in that time"),
        ({"feedback": {"since": "soon"}}, 422, "since"),
        ({"feedback": {"weight": 0}}, 422, "weight"),
        ({"feedback": {"weight": 101}}, 422, "weight"),
        ({"feedback": {"weight": 2.5}}, 422, "weight"),
        ({"feedback": {"sinse": "P7D"}}, 422, "did you mean since"),
        ({"dataset": None}, 422, "feedback needs a dataset that grows"),
        ({"dataset": "nothing"}, 404, "line has no dataset nothing"),
        ({"dataset": "Field!"}, 422, "write it as name@version"),
        ({"model": "fixed", "dataset": "lines@1"}, 422, "fixed cannot be trained on files"),
        ({"model": "bare"}, 422, "bare has no recipe"),
    ],
)
def test_an_order_that_cannot_be_queued_says_why(
    served: tuple[TestClient, Store], change: dict[str, Any], status: int, words: str
) -> None:
    assert words in detail(served[0].post("/train", json={**ORDER, **change}), status)


def test_since_is_a_duration_or_a_time() -> None:
    assert FeedbackChoice(since="P1D").begin(90_000.0) == 3_600.0
    begins = [
        FeedbackChoice.model_validate({"since": since}).begin(0.0)
        for since in (None, "1970-01-02T00:00:00Z", "1970-01-02T00:00:00", "1970-01-02T01:00:00+01:00")
    ]
    assert begins == [0.0, 86_400.0, 86_400.0, 86_400.0]


def test_the_settings_are_replaced_as_a_whole(served: tuple[TestClient, Store]) -> None:
    client = served[0]
    before = client.get(RETRAIN).json()
    assert (before["corrections"], before["every"], before["on_drift"], before["job"]) == (None, None, False, None)
    body = {"corrections": 200, "every": "P7D", "at_most_every": "PT1H", "weight": 9, "dataset": "field"}
    kept = client.put(RETRAIN, json=body).json()
    assert {name: kept[name] for name in body} == body
    assert (kept["promote"], kept["watermark"], kept["fault"]) == ("trial", 0, None)
    assert client.get(RETRAIN).json() == kept
    assert client.put(RETRAIN, json={}).json()["corrections"] is None


def test_the_service_queues_what_is_due_by_itself(served: tuple[TestClient, Store]) -> None:
    client, _ = served
    corrected(client, 2.5)
    client.put(RETRAIN, json={"corrections": 1, "dataset": "field"})
    job = until(lambda: client.get(RETRAIN).json()["job"])
    assert client.get(f"/jobs/{job}").json()["feedback"]["reason"].endswith("new corrections")
    assert client.get(RETRAIN).json()["new_corrections"] == 0
    client.put(RETRAIN, json={})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"corrections": 5}, 422, "dataset: name the dataset that grows"),
        ({"corrections": 0, "dataset": "field"}, 422, "corrections"),
        ({"every": "PT0S", "dataset": "field"}, 422, "every"),
        ({"every": "weekly", "dataset": "field"}, 422, "every"),
        ({"on_drift": 1, "dataset": "field"}, 422, "on_drift"),
        ({"correction": 5}, 422, "did you mean corrections"),
        ({"corrections": 5, "dataset": "nothing"}, 404, "no dataset nothing"),
        ({"corrections": 5, "dataset": "field", "config": {"epoch": 1}}, 422, "did you mean epochs"),
        ({"corrections": 5, "dataset": "field", "promote": "soon"}, 422, "promote"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    served: tuple[TestClient, Store], body: dict[str, Any], status: int, words: str
) -> None:
    assert words in detail(served[0].put(RETRAIN, json=body), status)


UNSTORABLE = {
    "nan": "NaN",
    "infinite": "Infinity",
    "overflows": "1e400",
    "huge": "9" * 400,
    "wrong type": "[]",
    "text": '"0.1"',
    "null": "null",
    "out of range": "-1",
    "lone surrogate": '"\\ud800"',
    "surrogate as key": '{"\\udc00": 1}',
    "nul": '"\\u0000"',
    "deep": "[" * 500 + "]" * 500,
    "long": '"' + "a" * 100_000 + '"',
}


@pytest.mark.parametrize("dataset", ["", '"dataset": "field", ', '"corrections": 5, "dataset": "field", '])
@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
def test_hyperparameters_are_checked_whatever_else_is_set(
    served: tuple[TestClient, Store], value: str, dataset: str
) -> None:
    client = served[0]
    before = client.get(RETRAIN).json()
    body = f'{{{dataset}"config": {{"epochs": {value}}}}}'
    assert "epochs" in detail(client.put(RETRAIN, content=body, headers={"Content-Type": "application/json"}), 422)
    assert client.get(RETRAIN).json() == before


def test_models_that_cannot_be_retrained_say_so(served: tuple[TestClient, Store]) -> None:
    client = served[0]
    assert "cannot be trained on files" in detail(
        client.put("/models/fixed/retrain", json={"corrections": 1, "dataset": "lines"}), 422
    )
    assert client.get("/models/none/retrain").status_code == 404
    assert client.put("/models/none/retrain", json={}).status_code == 404
