"""With TORCHLOOP_MAX_LOADED, the networks used last are loaded; the others are loaded on demand."""

import asyncio
import gc
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from starlette.testclient import TestClient

from models.checkpoints.record import Record, verify
from models.checkpoints.storage import Storage
from service.app import create_app
from service.client import tables
from service.delivery import rollout
from service.delivery.nodes import Nodes
from service.errors import ServiceError, StoreUnavailable
from service.inference.backends.pytorch import EagerBackend
from service.inference.engine import Engine, Loaded
from service.inference.working_set import WorkingSet
from service.settings import Settings
from service.store.database import Store
from tests.fakes import LINE, InProcess, save_line
from tests.problems import is_problem
from tests.serving import BASE_URL, no_recipes
from tests.templates import migrated
from tests.waiting import until

NAMES = ("a", "b", "c")
SLOPES = dict.fromkeys(NAMES, 2.0)
BODY = {"inputs": [[1]]}
TENSOR = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}


class Loads:
    """The loads of an engine, by model; each waits until `opened` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: list[str] = []
        self.opened, self.reached = threading.Event(), threading.Event()
        self.opened.set()
        load = Engine.load

        def counted(engine: Engine, name: str, version: int, path: Path, record: Record) -> Loaded:
            self.models.append(name)
            self.reached.set()
            assert self.opened.wait(120)
            return load(engine, name, version, path, record)

        monkeypatch.setattr(Engine, "load", counted)

    def close(self) -> None:
        """Hold up the loads that begin from now on."""
        self.models.clear()
        self.reached.clear()
        self.opened.clear()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    loads = Loads(monkeypatch)
    yield loads
    loads.opened.set()


@contextmanager
def started(folder: Path, slopes: Mapping[str, float] = SLOPES, **settings: Any) -> Iterator[TestClient]:
    """The application with three models, one of which is loaded at a time."""
    for name in NAMES:
        save_line(folder, name, slopes[name])
    specs = dict.fromkeys(NAMES, LINE)
    chosen = Settings(**{"store": migrated(folder / "store"), "max_loaded": 1, **settings})
    app = create_app(chosen, specs, folder, no_recipes, partial(InProcess, specs))
    with TestClient(app, BASE_URL, raise_server_exceptions=False) as client:
        yield client


def loaded(client: TestClient) -> list[str]:
    """The loaded models."""
    return [model["name"] for model in client.get("/models").json()["models"] if model["loaded"]]


def metric(client: TestClient, name: str) -> float:
    """The value of a metric, all labels together."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_a_start_loads_the_first_models_and_all_are_ready(
    loads: Loads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path, max_loaded=2) as client:
        assert len(loaded(client)) == 2  # at the first start each is loaded to be registered
        assert sorted(loads.models) == ["a", "b", "c"]
    loads.models.clear()
    with started(tmp_path, max_loaded=2) as client:
        assert sorted(loads.models) == loaded(client) == ["a", "b"]
        assert client.get("/health/ready").json()["reasons"] == {}
        assert client.get("/v2/models/c/ready").json() == {"name": "c", "ready": True}
        row = client.post("/v2/repository/index").json()[-1]
        assert row == {"name": "c", "version": "1", "state": "READY", "reason": "loaded on demand"}
        assert client.get("/v2/models/c/stats").json()["model_stats"][0]["version"] == "1"
        model = client.get("/models/c").json()
        assert (model["live"], model["loaded"], model["unloaded"], model["fault"]) == (1, None, True, None)
        tables.models(client.get("/models").json()["models"])
        assert re.search(r"c +1 +on demand", capsys.readouterr().out)


@pytest.mark.many
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict/b", BODY),
        ("/predict/b?version=1", BODY),
        ("/explain/b", BODY),
        ("/v2/models/b/infer", TENSOR),
        ("/v2/models/b/versions/1/infer", TENSOR),
    ],
    ids=["predict", "version", "explain", "infer", "infer-version"],
)
def test_every_protocol_loads_an_unloaded_model_and_answers(tmp_path: Path, path: str, body: object) -> None:
    with started(tmp_path, max_loaded=1) as client:
        client.post("/predict/a", json=BODY)
        assert loaded(client) == ["a"]
        answer = client.post(path, json=body)
        assert (answer.status_code, "3" in answer.text) == (200, True)
        assert loaded(client) == ["a" if "version" in path else "b"]


def test_the_least_recently_used_network_is_unloaded_and_counted(loads: Loads, tmp_path: Path) -> None:
    with started(tmp_path, max_loaded=2) as client:
        for name in ("a", "b", "a", "c"):
            assert client.post(f"/predict/{name}", json=BODY).status_code == 200
        assert loaded(client) == ["a", "c"]
        loads.models.clear()
        before = [metric(client, f"torchloop_{name}") for name in ("loads_total", "unloads_total")]
        assert client.post("/predict/b", json=BODY).status_code == 200
        assert (loads.models, loaded(client)) == (["b"], ["b", "c"])
        after = [metric(client, f"torchloop_{name}") for name in ("loads_total", "unloads_total")]
        assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1]
        assert metric(client, "torchloop_cold_start_seconds_count") >= 1
        assert 'torchloop_loaded_version{model="a"}' not in client.get("/metrics").text


def test_one_load_serves_all_that_wait_and_others_are_answered_meanwhile(loads: Loads, tmp_path: Path) -> None:
    with started(tmp_path) as client, ThreadPoolExecutor(4) as pool:
        assert client.post("/predict/a", json=BODY).status_code == 200
        loads.close()
        waiting = [pool.submit(client.post, "/predict/b", json=BODY) for _ in range(3)]
        waiting.append(pool.submit(client.post, "/v2/models/b/infer", json=TENSOR))
        assert loads.reached.wait(60)
        assert client.post("/predict/a", json=BODY).status_code == 200
        loads.opened.set()
        assert [one.result().status_code for one in waiting] == [200] * 4
        assert loads.models == ["b"]


def test_requests_that_wait_for_a_load_count_for_load_shedding(loads: Loads, tmp_path: Path) -> None:
    with started(tmp_path, queue_limit=1) as client, ThreadPoolExecutor(1) as pool:
        assert client.post("/predict/a", json=BODY).status_code == 200
        loads.close()
        waiting = pool.submit(client.post, "/predict/b", json=BODY)
        assert loads.reached.wait(60)
        assert client.post("/predict/c", json=BODY).status_code == 429
        loads.opened.set()
        assert waiting.result().status_code == 200


def test_a_deadline_shorter_than_the_load_is_a_504_and_the_load_goes_on(loads: Loads, tmp_path: Path) -> None:
    with started(tmp_path, request_timeout_s=0.05) as client:
        loads.close()
        (other, *_) = set(NAMES) - set(loaded(client))
        assert is_problem(client.post(f"/predict/{other}", json=BODY), 504, f"{other} was not loaded within 0.05 s")
        assert client.post(f"/v2/models/{other}/infer", json=TENSOR).status_code == 504
        loads.opened.set()
        until(lambda: loaded(client) == [other])
        assert loads.models == [other]


def test_a_broken_checkpoint_is_named_and_the_loaded_network_stays(tmp_path: Path) -> None:
    with started(tmp_path) as client:
        client.post("/predict/a", json=BODY)
        for path in Storage(tmp_path / "store").checkpoints("b").glob("*.pt"):
            path.write_bytes(b"broken")
        for _ in range(2):
            assert is_problem(client.post("/predict/b", json=BODY), 503, "b could not be loaded: ")
        ready = client.get("/health/ready")
        assert (ready.status_code, list(ready.json()["reasons"])) == (503, ["b"])
        assert (loaded(client), client.get("/models/b").json()["unloaded"]) == (["a"], False)
        assert client.post("/predict/a", json=BODY).status_code == 200
        assert client.post("/v2/repository/index").json()[1]["state"] == "UNAVAILABLE"


def test_a_load_that_raises_anything_is_the_fault_of_its_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with started(tmp_path) as client:
        client.post("/predict/a", json=BODY)

        def broken(*_: object) -> Loaded:
            raise RuntimeError("no memory on /dev/secret")

        monkeypatch.setattr(Engine, "load", broken)
        fault = "b could not be loaded: loading b raised RuntimeError, see the service's log"
        assert is_problem(client.post("/predict/b", json=BODY), 503, fault)
    assert "no memory on /dev/secret" in caplog.text


def test_without_the_database_or_the_files_an_unloaded_model_is_a_503_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rollout, "RETRY_S", 0)
    with started(tmp_path) as client:
        client.post("/predict/a", json=BODY)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "read", away)
            refused = client.post("/predict/b", json=BODY)
            assert is_problem(refused, 503, "the database is away")
            assert refused.headers["Retry-After"] == "2"
            assert client.post("/predict/a", json=BODY).status_code == 200
            assert client.get("/models/b").json()["unloaded"]
        checkpoints = Storage(tmp_path / "store").checkpoints("b")
        aside = checkpoints.rename(tmp_path / "aside")
        assert is_problem(client.post("/predict/b", json=BODY), 503, "b could not be loaded: ")
        aside.rename(checkpoints)
        until(lambda: client.post("/predict/b", json=BODY).status_code == 200)
        assert client.get("/health/ready").json()["reasons"] == {}


def away(_: Store) -> NoReturn:
    """A method of a Store whose database cannot be reached."""
    raise StoreUnavailable("the database is away")


def test_promotions_of_an_unloaded_model_load_it_and_rollbacks_too(tmp_path: Path) -> None:
    with started(tmp_path) as client:
        for name in ("b", "a"):
            client.post(f"/predict/{name}", json=BODY)
        content = save_line(tmp_path / "other", "b", slope=5).read_bytes()
        added = client.post("/models/b/versions", content=content, headers={"Content-Type": "application/octet-stream"})
        assert added.status_code == 201, added.text
        assert loaded(client) == ["a"]
        done = client.post("/models/b/promote", json={"version": 2}).json()
        assert (done["live"], done["waiting_for"], loaded(client)) == (2, [], ["b"])
        client.post("/predict/a", json=BODY)
        assert client.post("/models/b/rollback").json()["live"] == 1
        client.post("/predict/a", json=BODY)
        assert client.post("/predict/b", json=BODY).json()["predictions"] == [{"value": 3}]


def test_a_node_follows_the_promotion_of_an_unloaded_model_without_loading_it(tmp_path: Path) -> None:
    with started(tmp_path) as first, started(tmp_path) as second:
        for client in (first, second):
            assert client.post("/predict/a", json=BODY).status_code == 200
        content = save_line(tmp_path / "other", "b", slope=5).read_bytes()
        added = first.post("/models/b/versions", content=content, headers={"Content-Type": "application/octet-stream"})
        until(lambda: all(node["loaded"] == {"a": 1} for node in first.get("/nodes").json()["nodes"]))
        done = first.post("/models/b/promote", json={"version": added.json()["version"]}).json()
        assert (done["live"], done["waiting_for"]) == (2, [])
        assert loaded(second) == ["a"]
        answer = second.post("/predict/b", json=BODY)
        assert (answer.headers["X-Model-Version"], answer.json()["predictions"]) == ("2", [{"value": 6}])


def test_a_promotion_waits_for_a_node_that_loads_the_model_on_demand(loads: Loads, tmp_path: Path) -> None:
    with (
        started(tmp_path) as client,
        closing(Store(tmp_path / "store")) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        client.post("/predict/a", json=BODY)
        until(lambda: client.get("/nodes").json()["nodes"][0]["loaded"] == {"a": 1})
        nodes = Nodes(store)
        assert nodes.behind("b", 2, but="another") == []
        loads.close()
        waiting = pool.submit(client.post, "/predict/b", json=BODY)
        assert loads.reached.wait(60)
        assert len(nodes.behind("b", 2, but="another")) == 1
        loads.opened.set()
        assert waiting.result().status_code == 200


@pytest.mark.slow
def test_random_access_to_more_models_than_are_loaded_is_answered_by_each_model(tmp_path: Path) -> None:
    slopes = dict(zip(NAMES, (2, 5, 9), strict=True))
    with started(tmp_path, slopes) as client, ThreadPoolExecutor(8) as pool:

        def ask(name: str) -> bool:
            answer = client.post(f"/predict/{name}", json=BODY)
            return answer.status_code == 200 and answer.json()["predictions"] == [{"value": slopes[name] + 1}]

        assert all(pool.map(ask, [*NAMES, *reversed(NAMES)] * 10))


@pytest.mark.slow
def test_a_network_that_a_batch_holds_stays_alive_when_it_is_unloaded(tmp_path: Path) -> None:
    engine = Engine({"a": LINE}, EagerBackend("cpu", 1, 8), 8)
    networks = WorkingSet(engine, 1)

    async def go() -> None:
        path = save_line(tmp_path, "a")
        engine.swap(engine.load("a", 1, path, verify("a", path)))
        networks.used("a")
        held = await networks.network("a")
        networks.used("b")
        assert networks.unload_surplus() == ["a"]
        assert engine.loaded("a") is None
        assert engine.live("a") is held
        del held
        gc.collect()
        with pytest.raises(ServiceError):
            engine.live("a")

    asyncio.run(go())
    engine.close()
