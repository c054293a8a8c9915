"""Several machines as processes: services on one PostgreSQL behind HAProxy, which `torchloop haproxy` feeds.

Without retries of the client no prediction fails, whatever happens to one of the services.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.postgres import Postgres
from benchmarks.service_process import running_service
from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.store.database import Store
from tests.balancer import Load, environment, listening_socket, running_haproxy
from tests.fakes import ROOT, started_before
from tests.waiting import until

pytestmark = pytest.mark.slow
_SLOW_S = 5.0  # HAProxy's limit is 2 s; these machines are busy


class Machine:
    """One service, and a client of it."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.address = urlsplit(url).netloc
        self.process = process
        self.client = httpx.Client(base_url=url, timeout=60)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body).raise_for_status().json()

    @property
    def loaded(self) -> int:
        return int(self.client.get("/models/regressor").json()["loaded"])

    @property
    def answered(self) -> bool:
        return 'torchloop_requests_total{model="regressor",status="200"}' in self.client.get("/metrics").text

    @property
    def known(self) -> dict[str, str]:
        """The nodes that it knows, and their states."""
        return {node["address"]: node["state"] for node in self.client.get("/nodes").json()["nodes"]}


class Cluster:
    """Services on one database, behind HAProxy."""

    def __init__(self, stack: ExitStack, store: Path, url: str) -> None:
        self._stack = stack
        self.settings = {"store": str(store), "database_url": url}
        self.port = 0

    def machine(self) -> Machine:
        """Start a service."""
        settings = {f"TORCHLOOP_{name.upper()}": value for name, value in self.settings.items()}
        machine = Machine(*self._stack.enter_context(running_service(settings, own_session=True)))
        self._stack.callback(machine.client.close)
        self._stack.callback(machine.process.send_signal, signal.SIGCONT)
        return machine

    def haproxy(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Start `torchloop haproxy`."""
        command = [sys.executable, "-m", "service.command", "haproxy", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, env=environment(**self.settings), text=True)


@pytest.fixture(scope="module")
def cluster(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Machine, Machine]]:
    """Two services, balanced; version 2 of the regressor is the same file as version 1."""
    folder = tmp_path_factory.mktemp("nodes")
    url = postgres.create_database("nodes")
    config, runtime = folder / "haproxy.cfg", folder / "admin.sock"
    with ExitStack() as stack:
        cluster = Cluster(stack, started_before(folder / "store"), url)
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda _: cluster.machine(), range(2))
        register_again(Store(folder / "store", url))
        descriptor, cluster.port = stack.enter_context(listening_socket())
        written = cluster.haproxy("--output", config, "--bind", f"fd@{descriptor}", "--stats-socket", runtime)
        assert written.wait(60) == 0
        stack.enter_context(running_haproxy(config, descriptor, runtime))
        feeder = stack.enter_context(cluster.haproxy("--socket", runtime, "--watch"))
        stack.callback(feeder.kill)
        yield cluster, first, second


def register_again(store: Store) -> None:
    registry = Registry(store)
    first = registry.version("regressor", 1)
    with store.write() as connection:
        registry.add(connection, "regressor", registry.path(first), Record(**first.record), job=None, now=1.0)
    store.close()


def test_a_promotion_answers_when_the_other_machine_has_followed(cluster: tuple[Cluster, Machine, Machine]) -> None:
    balanced, first, second = cluster
    with Load(balanced.port) as load:
        for version, asked, other in ((2, first, second), (1, second, first), (2, second, first)):
            done = asked.post("/models/regressor/promote", version=version)
            assert done["waiting_for"] == []
            assert (asked.loaded, other.loaded) == (version, version)
        assert first.post("/models/regressor/rollback")["waiting_for"] == []
        assert (first.loaded, second.loaded) == (1, 1)
    assert not load.failed
    assert first.answered
    assert second.answered


def predicted(port: int, samples: int) -> int:
    """The number of predictions for that many samples, behind HAProxy."""
    body = {"inputs": [[0.1234567]] * samples}
    answer = httpx.post(f"http://127.0.0.1:{port}/predict/regressor", json=body, timeout=60).raise_for_status()
    return len(answer.json()["predictions"])


def test_a_frozen_machine_is_named_and_fails_no_prediction(cluster: tuple[Cluster, Machine, Machine]) -> None:
    balanced, first, second = cluster
    with Load(balanced.port) as load, ThreadPoolExecutor() as pool:
        second.process.send_signal(signal.SIGSTOP)
        large = pool.map(partial(predicted, balanced.port), [4_000] * 4)  # 48 kB each
        done = first.post("/models/regressor/promote", version=2)
        assert done["waiting_for"] == [second.address]
        assert list(large) == [4_000] * 4
        until(lambda: first.known[second.address] == "silent")
        second.process.send_signal(signal.SIGCONT)
        until(lambda: second.loaded == 2)
        until(lambda: first.known[second.address] == "serving")
    assert not load.failed
    assert load.slowest_s < _SLOW_S


def test_a_machine_that_joins_gets_requests_and_one_that_leaves_fails_none(
    cluster: tuple[Cluster, Machine, Machine],
) -> None:
    balanced, first, second = cluster
    with Load(balanced.port) as load:
        third = balanced.machine()
        assert first.known.keys() == {first.address, second.address, third.address}
        until(partial(getattr, third, "answered"))
        third.process.terminate()
        assert third.process.wait(60) == 0
        assert first.known.keys() == {first.address, second.address}
    assert not load.failed
    assert load.slowest_s < _SLOW_S


def test_a_killed_machine_fails_no_prediction_and_is_listed_as_silent(
    cluster: tuple[Cluster, Machine, Machine],
) -> None:
    balanced, first, second = cluster
    with Load(balanced.port) as load:
        second.process.kill()
        until(lambda: first.known[second.address] == "silent")
        done = first.post("/models/regressor/promote", version=1)
        assert done["waiting_for"] == []
    assert not load.failed
    assert load.slowest_s < _SLOW_S
    until(lambda: 'torchloop_nodes{state="silent"} 1.0' in first.client.get("/metrics").text)
