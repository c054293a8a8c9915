"""GET /models/{model}/drift and its metrics, through the whole service; and the client's method and command."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models import catalog, mnist
from models.checkpoints import state_dict
from models.checkpoints.record import Record, verify
from models.drift.reference import DriftReference, measured
from models.drift.reference import counted as drift_counts
from service.client import Client, Entry
from service.client.__main__ import main as command
from service.data import drift_counter
from service.data.drift import judged
from service.settings import Key
from tests.fakes import LINE, save_line
from tests.line_versions import promote, upload
from tests.serving import no_recipes, npy, over, serving
from tests.waiting import until

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(3)
START = 1_000_000 * 60.0


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def every_request_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_counter, "PAUSE_S", 0)


def checkpoints(folder: Path) -> Path:
    """A checkpoint of the small model whose reference is of normal numbers."""
    path = save_line(folder)
    samples = RNG.normal(size=(5000, 1)).astype(np.float32)
    reference = measured(LINE, [samples], [2 * samples[:1000] + 1], {})
    sha256 = state_dict.load("line", LINE, path)[1].sha256
    state_dict.save_record(Record(model="line", sha256=sha256, drift=reference.as_json()), path)
    return folder


def send(client: TestClient, clock: Clock, *bodies: Any, model: str = "line") -> None:
    """Ask for predictions of arrays, one in each minute."""
    for body in bodies:
        headers = {"Content-Type": "application/x-npy"}
        response = client.post(f"/predict/{model}", content=npy(body), headers=headers)
        assert response.status_code == 200, response.text
        client.get("/health/live")  # the observers have seen the request by now
        clock.seconds += 60


def normal(shift: float, rows: int = 500) -> Any:
    return (RNG.normal(size=(rows, 1)) + shift).astype(np.float32)


@contextmanager
def counted(folder: Path, *bodies: Any) -> Iterator[TestClient]:
    """The service, after it has answered these bodies and was started again: then what it has counted is written."""
    clock, store = Clock(), folder / "store"
    with serving(checkpoints(folder), {"line": LINE}, store=store, now=clock) as client:
        send(client, clock, *bodies)
    with serving(folder, {"line": LINE}, store=store, now=clock) as client:
        yield client


def test_a_shift_of_0_3_standard_deviations_is_drift_after_1000_samples(tmp_path: Path) -> None:
    with counted(tmp_path, normal(0.35), normal(0.35)) as client:
        found = client.get("/models/line/drift").json()
        assert (found["model"], found["version"], found["window"], found["state"]) == ("line", 1, "1h", "drift")
        assert found["samples"] == 1000
        assert found["confidence"] is None
        feature, answer = found["features"]
        assert (feature["name"], feature["kind"], feature["drifted"]) == ("feature 0", "feature", True)
        assert (answer["name"], answer["kind"], answer["reference_samples"]) == ("value", "answer", 1000)
        assert feature["psi"] > feature["limit"] >= 0.05
        assert [half["samples"] for half in feature["halves"]] == [500, 500]
        assert all(half["psi"] > half["limit"] for half in feature["halves"])
        bins = feature["bins"]
        assert [bins[0]["low"], bins[-2]["high"], bins[-1]["name"]] == [None, None, "not finite"]
        for side in ("reference", "window"):
            assert sum(one[side] for one in bins) == pytest.approx(1)
        assert client.get("/models/line/drift", params={"version": 1, "window": "7d"}).json()["samples"] == 1000
        assert client.get("/models/line/drift?window=1m").json()["state"] == "too few samples"


def test_drift_is_in_the_feed_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_counter, "EVERY_S", 0.01)
    clock = Clock()

    def told(app: TestClient) -> list[Entry]:
        client = Client("http://localhost", transport=over(app))
        return list(client.events(follow=False, kind="drift.*", model="line"))

    with serving(checkpoints(tmp_path), {"line": LINE}, store=tmp_path / "store", now=clock) as app:
        send(app, clock, normal(1), normal(1), normal(1))
        (begun,) = until(lambda: told(app))
    with serving(tmp_path, {"line": LINE}, store=tmp_path / "store", now=clock) as app:
        clock.seconds += 2 * 3600
        send(app, clock, normal(0))
        _, ended = until(lambda: found if len(found := told(app)) > 1 else [])
    assert (begun.kind, begun.data["version"], begun.data["features"][0]["name"]) == ("drift.begun", 1, "feature 0")
    assert (ended.kind, ended.data["begun_at"]) == ("drift.ended", begun.at.timestamp())


def test_without_a_shift_there_is_no_drift_and_the_client_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(tmp_path, normal(0), normal(0)) as app:
        client = Client("http://localhost", transport=over(app))
        found = client.drift("line", window="1d")
        assert (found["state"], found["samples"]) == ("stable", 1000)
        monkeypatch.setattr("service.client.__main__.Client", lambda *_, **__: client)
        assert command(["drift", "line"]) == 0
        out = capsys.readouterr().out
        assert "version 1 of line: stable, 1000 samples" in out
        assert "feature 0" in out


def test_what_cannot_be_answered_says_why(tmp_path: Path) -> None:
    with serving(save_line(tmp_path).parent, {"line": LINE, "empty": LINE}, no_recipes) as client:
        for path, status, words in (
            ("/models/none/drift", 404, "unknown model"),
            ("/models/empty/drift", 404, "empty has no live version"),
            ("/models/line/drift?version=9", 404, "no version 9"),
            ("/models/line/drift?version=none", 422, "version"),
            ("/models/line/drift?window=1y", 422, "window"),
            ("/models/line/drift?window=31d", 422, "window"),
            ("/models/line/drift?window=721h", 422, "window"),
            ("/models/line/drift", 409, "could not be evaluated. Train it again, or upload"),
        ):
            response = client.get(path)
            assert response.status_code == status, path
            assert words in response.text


def test_an_upload_without_a_dataset_has_no_reference_and_answers_as_ever(tmp_path: Path) -> None:
    clock = Clock()
    with serving(checkpoints(tmp_path), {"line": LINE}, no_recipes, now=clock) as client:
        assert promote(client, upload(client, 3.0)).status_code == 200
        send(client, clock, normal(0))
        assert client.get("/models/line/drift").status_code == 409


def test_a_key_that_predicts_may_look(tmp_path: Path) -> None:
    with serving(checkpoints(tmp_path), {"line": LINE}, api_keys=(Key(scope="predict", secret="p"),)) as client:  # noqa: S106
        assert client.get("/models/line/drift").status_code == 401
        response = client.get("/models/line/drift", headers={"Authorization": "Bearer p"})
        assert response.json()["state"] == "too few samples"


@pytest.fixture(scope="module")
def digits(mnist_folder: Path) -> Any:
    """The test pictures of MNIST, uint8 (10000, 28, 28)."""
    from training import data  # noqa: PLC0415

    return data.mnist(mnist_folder).test.samples.numpy()[:, 0]


def test_rotated_digits_are_drift_within_500_samples_and_upright_ones_are_not(tmp_path: Path, digits: Any) -> None:
    clock, store = Clock(), tmp_path / "store"
    for bodies, state in (
        ([digits[:250], digits[250:500]], "stable"),
        ([np.rot90(part, axes=(1, 2)) for part in (digits[:250], digits[250:500])], "drift"),
    ):
        clock.seconds += 7200
        specs = {"mnist": mnist.SPEC}
        with serving(catalog.PRETRAINED, specs, no_recipes, store=store, now=clock) as client:
            send(client, clock, *map(np.ascontiguousarray, bodies), model="mnist")
        with serving(catalog.PRETRAINED, specs, no_recipes, store=store, now=clock) as client:
            found = client.get("/models/mnist/drift").json()
            assert (found["samples"], found["state"]) == (500, state), json.dumps(found["features"])[:500]
            drifted = {one["name"] for one in found["features"] if one["drifted"]}
            assert drifted >= ({"box width", "box height"} if state == "drift" else set())
            assert found["confidence"]["reference"] > 0.99


def test_inverted_digits_that_no_check_refuses_are_drift_within_500_samples(digits: Any) -> None:
    reference = DriftReference.of_json(verify("mnist", catalog.PRETRAINED / "mnist.pt").drift)
    values = np.full((250, 10), 0.1, np.float32)
    for invert in (False, True):
        rows = [
            (minute, drift_counts(mnist.SPEC, reference, (255 - part if invert else part)[:, None], values))
            for minute, part in enumerate((digits[:250], digits[250:500]))
        ]
        found = {one.distribution.name: one for one in judged(reference, rows, 0, 60).findings}
        assert found["ink mean"].has_drifted is invert
        assert found["label"].has_drifted  # as the values are all the same


def test_inverted_digits_are_refused_by_the_check_of_the_model(tmp_path: Path, digits: Any) -> None:
    with serving(catalog.PRETRAINED, {"mnist": mnist.SPEC}, no_recipes) as client:
        body = npy(255 - digits[:2])
        response = client.post("/predict/mnist", content=body, headers={"Content-Type": "application/x-npy"})
        assert response.status_code == 422
        assert "black on white" in response.text


def test_the_shipped_records_have_the_reference_of_their_data(mnist_folder: Path) -> None:
    from training.drift import measured_drift  # noqa: PLC0415
    from training.recipe import recipes  # noqa: PLC0415
    from training.run import reopened  # noqa: PLC0415

    for name in ("regressor", "classifier"):
        path = catalog.PRETRAINED / f"{name}.pt"
        network, record, dataset = reopened(name, recipes()[name], path, mnist_folder)
        found = measured_drift(name, catalog.specs()[name], network, dataset, {})
        assert [one["name"] for one in found["distributions"]] == [one["name"] for one in record.drift["distributions"]]
        for one, kept in zip(found["distributions"], record.drift["distributions"], strict=True):
            assert one["counts"] == kept["counts"]
        assert asdict(record)["drift"]
