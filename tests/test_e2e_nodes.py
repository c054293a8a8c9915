"""Several machines as processes: services on one PostgreSQL behind HAProxy, which `torchloop haproxy` feeds.

Without retries of the client no prediction fails, whatever happens to one of the services.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from benchmarks.balancer import Load
from benchmarks.postgres import Postgres
from benchmarks.topology import Machine, Topology, register_again
from service.store.database import Store
from tests.balancer import binary
from tests.fakes import started_before
from tests.waiting import until

pytestmark = pytest.mark.slow
_SLOW_S = 5.0  # HAProxy's limit is 2 s; these machines are busy


@pytest.fixture(scope="module")
def cluster(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Topology, Machine, Machine]]:
    """Two services, balanced; version 2 of the regressor is the same file as version 1."""
    binary()
    folder = tmp_path_factory.mktemp("nodes")
    url = postgres.create_database("nodes")
    settings = {"store": str(started_before(folder / "store")), "database_url": url}
    with ExitStack() as stack:
        cluster = Topology(stack, settings, "regressor")
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda _: cluster.machine(), range(2))
        store = Store(folder / "store", url)
        register_again(store, "regressor")
        store.close()
        cluster.balance(folder)
        yield cluster, first, second


def test_a_promotion_answers_when_the_other_machine_has_followed(cluster: tuple[Topology, Machine, Machine]) -> None:
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


def test_a_frozen_machine_is_named_and_fails_no_prediction(cluster: tuple[Topology, Machine, Machine]) -> None:
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
    cluster: tuple[Topology, Machine, Machine],
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
    cluster: tuple[Topology, Machine, Machine],
) -> None:
    balanced, first, second = cluster
    with Load(balanced.port) as load:
        second.process.kill()
        until(lambda: first.known[second.address] == "silent")
        done = first.post("/models/regressor/promote", version=1)
        assert done["waiting_for"] == []
    assert not load.failed
    assert load.slowest_s < _SLOW_S
    until(lambda: 'torchloop_nodes{state="silent"} 1.0' in first.get("/metrics"))
