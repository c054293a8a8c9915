"""A leader that is killed between any two steps, or frozen: its successor makes one verdict. On both databases."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update

from service.delivery.registry import Registry
from service.delivery.rollout import Change
from service.delivery.trial_leader import Leader
from service.delivery.trial_tally import Tallies
from service.delivery.trials import Counts, Trial, Trials
from service.store.database import Store
from service.store.leadership import LEASE_S, Leadership
from service.store.tables import leaders
from service.telemetry.trial_metrics import TrialMetrics
from tests.fakes import ROOT
from tests.trials import CANARY, count, opened

pytestmark = pytest.mark.slow

# A leader that stops at the place that it is told, says so, and goes on with the next line of its input.
LEADING = """
import asyncio, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from service.delivery.registry import Registry
from service.delivery.rollout import Change
from service.delivery.trial_leader import Leader
from service.delivery.trial_tally import Tallies
from service.delivery.trials import Trials
from service.store.database import Store
from service.store.leadership import Leadership
from service.telemetry.trial_metrics import TrialMetrics

folder, url, place = sys.argv[1:]
store = Store(Path(folder), url)
promote_in = Registry.promote

def stop(here):
    if here == place:
        print("stopped", flush=True)
        sys.stdin.readline()

def in_transaction(*words, **named):
    done = promote_in(*words, **named)
    stop("in the transaction")
    return done

async def promote(model, version, commit):
    stop("before the transaction")
    previous = commit()
    stop("after the transaction")
    return Change(version, previous, [])

async def look():
    await leader.look()
    await leader.settled()

Registry.promote = in_transaction
trials = Trials(store)
leader = Leader(
    trials, Tallies(store), Leadership(store, "trials", "child"), promote, TrialMetrics(CollectorRegistry()),
    now=lambda: 600.0,
)
asyncio.run(look())
print("ended", flush=True)
"""


@contextmanager
def leading(store: Store, url: str, place: str) -> Iterator[subprocess.Popen[str]]:
    """A process that leads, stopped at that place."""
    command = [sys.executable, "-c", LEADING, str(store.folder), url, place]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        yield process
        process.kill()


def succeed(store: Store) -> None:
    """Lead in this process once the lease has expired, and look twice."""
    with store.write() as connection:
        connection.execute(update(leaders).values(seen_at=leaders.c.seen_at - LEASE_S - 1))

    async def promote(_: str, version: int, commit: object) -> Change:
        assert callable(commit)
        return Change(version, await asyncio.to_thread(commit), [])

    async def go() -> None:
        leadership = Leadership(store, "trials", "successor")
        metrics = TrialMetrics(CollectorRegistry())
        leader = Leader(Trials(store), Tallies(store), leadership, promote, metrics, now=lambda: 601.0)
        for _ in range(2):
            await leader.look()
            await leader.settled()

    asyncio.run(go())


def due(store: Store) -> Trial:
    """A trial whose candidate is to be promoted."""
    trial = opened(store, CANARY)
    count(trial, store, "candidate", Counts(requests=500, samples=500))
    return trial


def is_promoted_once(store: Store, trial: Trial) -> bool:
    states = [one.data["state"] for one in Trials(store).events(trial.id)]
    return (states, [row.version for row in Registry(store).history("line")]) == (["canary", "promoted"], [1, 2])


@pytest.mark.parametrize("place", ["before the transaction", "in the transaction", "after the transaction"])
def test_a_killed_leader_leaves_the_whole_step_or_none_of_it(store: Store, database_url: str, place: str) -> None:
    trial = due(store)
    with leading(store, database_url, place) as process:
        process.kill()
        process.wait()
        assert is_promoted_once(store, trial) == (place == "after the transaction")
        succeed(store)
    assert is_promoted_once(store, trial)


def test_a_frozen_leader_that_wakes_up_after_its_successor_writes_nothing(store: Store, database_url: str) -> None:
    trial = due(store)
    with leading(store, database_url, "before the transaction") as process:
        succeed(store)
        assert process.communicate("\n", timeout=60)[0] == "ended\n"
    assert is_promoted_once(store, trial)
