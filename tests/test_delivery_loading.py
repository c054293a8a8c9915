"""Models are loaded each by itself: those that are loaded answer, and the others say that they are being loaded."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.checkpoints.record import Record
from service.app import create_app
from service.client import tables
from service.inference.engine import Engine, Loaded
from service.settings import Settings
from tests.fakes import LINE, InProcess, save_line
from tests.problems import is_problem
from tests.serving import BASE_URL, no_recipes, serving
from tests.templates import migrated
from tests.waiting import until

SPECS = {"line": LINE, "slow": LINE, "none": LINE}
BODY = {"inputs": [[1]]}


class Gate:
    """Holds up `Engine.load` of one model until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: str = "slow") -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        load = Engine.load

        def gated(engine: Engine, name: str, version: int, path: Path, record: Record) -> Loaded:
            if name == model:
                self.reached.set()
                assert self.opened.wait(120)
            return load(engine, name, version, path, record)

        monkeypatch.setattr(Engine, "load", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


@contextmanager
def started(folder: Path, load_wait_s: float | None = 0) -> Iterator[TestClient]:
    """The application, whose start waits that long for its models; all but one have a shipped checkpoint."""
    for name in ("line", "slow"):
        save_line(folder, name)
    settings = Settings(store=migrated(folder / "store"))
    app = create_app(settings, SPECS, folder, no_recipes, partial(InProcess, SPECS), load_wait_s=load_wait_s)
    with TestClient(app, BASE_URL, raise_server_exceptions=False) as client:
        yield client


def test_loaded_models_answer_while_another_one_is_being_loaded(gate: Gate, tmp_path: Path) -> None:
    with started(tmp_path) as client:
        until(lambda: client.post("/predict/line", json=BODY).status_code == 200)
        assert client.get("/health/live").status_code == 200
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == {"slow": "slow is being loaded"}
        assert client.get("/v2/health/ready").json() == {"ready": False, "error": "slow: slow is being loaded"}
        gate.opened.set()
        until(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/predict/slow", json=BODY).json()["predictions"] == [{"value": 3}]
        assert client.get("/health/ready").json()["without_live_version"] == ["none"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict/slow", BODY),
        ("/explain/slow", BODY),
        ("/v2/models/slow/infer", {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}),
    ],
    ids=["predict", "explain", "infer"],
)
def test_a_request_for_a_model_that_is_being_loaded_is_told_to_try_again(
    gate: Gate, tmp_path: Path, path: str, body: object
) -> None:
    with started(tmp_path) as client:
        assert gate.reached.wait(60)
        refused = client.post(path, json=body)
        assert refused.status_code == 503
        assert "slow is being loaded: try again" in refused.text
        assert refused.headers["Retry-After"] == "2"


def test_the_list_says_which_models_are_being_loaded(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path) as client:
        until(lambda: client.get("/models/line").json()["loaded"] == 1)
        until(lambda: not client.get("/models/none").json()["loading"])
        found = {model["name"]: model for model in client.get("/models").json()["models"]}
        assert {name: model["loading"] for name, model in found.items()} == {"line": False, "slow": True, "none": False}
        assert found["slow"]["loaded"] is found["slow"]["fault"] is None
        tables.models(list(found.values()))
        assert re.search(r"slow +loading", capsys.readouterr().out)
        rows = client.post("/v2/repository/index").json()
        assert {row["name"]: row.get("reason") for row in rows} == {
            "line": "",
            "slow": "being loaded",
            "none": "no live version",
        }
        absent = client.post("/predict/none", json=BODY)
        assert is_problem(absent, 503, "none has no live version: train it")
        gate.opened.set()
        until(lambda: client.get("/models/slow").json()["loaded"] == 1)
        until(lambda: not client.get("/models/slow").json()["loading"])


def test_a_promotion_does_not_wait_for_another_models_load(gate: Gate, tmp_path: Path) -> None:
    with started(tmp_path) as client:
        until(lambda: client.get("/models/line").json()["loaded"] == 1)
        assert client.post("/models/line/promote", json={"version": 1}).json()["live"] == 1
        assert not gate.opened.is_set()
        assert "slow" in client.get("/health/ready").json()["reasons"]


def test_the_start_waits_for_the_models_by_default(gate: Gate, tmp_path: Path) -> None:
    timer = threading.Timer(0.2, gate.opened.set)
    timer.start()
    with started(tmp_path, None) as client:
        assert gate.opened.is_set()
        assert client.post("/predict/slow", json=BODY).status_code == 200
    timer.join()


def test_the_application_stops_while_a_model_is_being_loaded(gate: Gate, tmp_path: Path) -> None:
    with started(tmp_path) as client:
        assert gate.reached.wait(60)
        assert client.get("/health/live").status_code == 200
    assert not gate.opened.is_set()


def test_a_load_that_raises_anything_is_the_fault_of_its_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    load = Engine.load

    def broken(engine: Engine, name: str, version: int, path: Path, record: Record) -> Loaded:
        if name == "slow":
            raise RuntimeError("no memory on /dev/secret")
        return load(engine, name, version, path, record)

    monkeypatch.setattr(Engine, "load", broken)
    with started(tmp_path, None) as client:
        assert client.post("/predict/line", json=BODY).status_code == 200
        fault = "loading slow raised RuntimeError, see the service's log"
        assert client.get("/health/ready").json()["reasons"] == {"slow": fault}
        assert is_problem(client.post("/predict/slow", json=BODY), 503, f"slow could not be loaded: {fault}")
        assert client.get("/models/slow").json()["fault"] == fault
    assert "no memory on /dev/secret" in caplog.text


def test_a_shipped_checkpoint_is_loaded_once_at_the_first_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loads: list[str] = []
    load = Engine.load

    def counted(engine: Engine, name: str, version: int, path: Path, record: Record) -> Loaded:
        loads.append(name)
        return load(engine, name, version, path, record)

    monkeypatch.setattr(Engine, "load", counted)
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        assert client.get("/models/line/versions").json()["versions"][0]["live"]
        assert client.post("/predict/line", json=BODY).headers["X-Model-Version"] == "1"
    assert loads == ["line"]
