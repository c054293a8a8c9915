"""torchloop cluster on a real Ray cluster on loopback, with tokens.

One test has the whole story, since the start of a cluster takes longer than the rest. benchmarks/cluster_jobs.py
measures how soon a job is taken up again, and kills nodes at random.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks.postgres import Postgres
from benchmarks.ray_cluster import INSTALLED, RayNodes, dispatcher, ray_nodes
from service.delivery.registry import Registry
from service.execution.attempts import node_of
from service.jobs.queue import FINAL, Job, Jobs
from service.store.database import Store
from tests import paced
from tests.waiting import until
from tests.workers import worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="TORCHLOOP CLUSTER IS NOT TESTED: Ray is missing; pip install ray"),
]
ON_A_NODE = {"gpus": 0.5}  # which the worker beside the cluster has not


class Trial:
    """A store, and the nodes of a cluster."""

    def __init__(self, store: Store, nodes: RayNodes) -> None:
        self.store = store
        self.jobs = Jobs(store)
        self.nodes = nodes

    def enqueue(self, resources: dict[str, float] | None = None) -> Job:
        config = paced.config(self.store)
        return self.jobs.enqueue(paced.MODEL, config, "never", resources=resources, now=time.time())

    def when(self, job: Job, condition: Callable[[Job], bool]) -> Job:
        """Wait for a job, and return it as it is then."""
        found: list[Job] = until(lambda: [now for now in [self.jobs.get(job.id)] if condition(now)])
        return found[0]

    def in_the_middle(self, job: Job, attempt: int) -> Job:
        """Wait until an attempt has a resume point."""
        point = self.store.folder / "jobs" / job.id / f"resume-{attempt}.pt"
        return self.when(job, lambda now: now.state == "running" and now.attempt == attempt and point.exists())

    def ended(self, job: Job) -> Job:
        return self.when(job, lambda now: now.state in FINAL)

    def steps(self, job: Job, attempt: int) -> list[int]:
        """The steps that an attempt has reported."""
        events = self.jobs.events(job.id, kind="progress")
        return [event.data["step"] for event in events if event.attempt == attempt]

    def process(self, job: Job) -> psutil.Process:
        """The process of the attempt at work."""
        parent = _fits(self.nodes.nodes[_node(job)])[0].parent()
        assert parent is not None
        return parent


def _node(job: Job) -> str:
    node = node_of(job.worker)
    assert node is not None, "taken by a worker that has no GPU"
    return node


def goes_on_with_jobs_that_ray_refuses(trial: Trial) -> None:
    refused, empty = trial.enqueue({"gpus": 0.00001}), trial.enqueue({"nodes": 2, "cpus": 0})
    trial.when(empty, lambda now: now.state == "running")
    for job in (refused, empty):
        trial.jobs.cancel(job.id, now=time.time())
        assert trial.ended(job).state == "cancelled"
    until(lambda: not any(map(_fits, trial.nodes.nodes.values())))


def is_trained_on_two_nodes_and_outlives_one(trial: Trial) -> None:
    job = trial.enqueue({"gpus": 0.5, "nodes": 2})
    own = _node(trial.in_the_middle(job, 1))
    (other,) = [node for node, raylet in trial.nodes.nodes.items() if node != own and _fits(raylet)]
    trial.nodes.do(f"kill {other}")
    again = trial.in_the_middle(job, 2)
    assert again.error == {"title": "Attempt 1 ended early", "detail": "another node of this job was lost"}
    assert min(trial.steps(job, 2)) > min(trial.steps(job, 1)), "it has begun anew"
    trial.jobs.cancel(job.id, now=time.time())
    assert trial.ended(job).state == "cancelled"
    until(lambda: not any(map(_fits, trial.nodes.nodes.values())))
    trial.nodes.do("add")


def _fits(raylet: int) -> list[psutil.Process]:
    """The torch subprocesses of a node."""
    found = []
    for child in psutil.Process(raylet).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "training.process" in child.cmdline():
                found.append(child)
    return found


def goes_on_without_its_dispatcher(trial: Trial, job: Job, parent: psutil.Process) -> None:
    children = parent.children(recursive=True)
    parent.kill()
    psutil.wait_procs(children, 60)
    assert not any(child.is_running() for child in children), "it left a process behind"
    seen = len(trial.steps(job, 1))
    trial.when(job, lambda _: len(trial.steps(job, 1)) > seen + 3)


def is_given_back_in_good_order(trial: Trial, job: Job) -> None:
    """`ray stop` sends SIGTERM."""
    trial.process(trial.jobs.get(job.id)).terminate()
    again = trial.in_the_middle(job, 2)
    assert (again.released, again.error) == (1, None)


def outlives_its_node(trial: Trial, job: Job) -> None:
    lost = _node(trial.jobs.get(job.id))
    trial.nodes.do(f"kill {lost}")
    again = trial.in_the_middle(job, 3)
    assert _node(again) != lost


def is_not_written_by_a_node_that_was_frozen(trial: Trial, job: Job) -> None:
    frozen = _node(trial.jobs.get(job.id))
    trial.nodes.do(f"freeze {frozen}")
    again = trial.in_the_middle(job, 4)
    assert _node(again) != frozen
    written = len(trial.steps(job, 3))
    trial.nodes.do(f"thaw {frozen}")
    seen = len(trial.steps(job, 4))
    trial.when(job, lambda _: len(trial.steps(job, 4)) > seen + 10)
    assert len(trial.steps(job, 3)) == written, "the woken attempt has written"


def test_a_job_outlives_its_dispatcher_and_its_nodes_beside_another_worker(postgres: Postgres, tmp_path: Path) -> None:
    project = paced.write_project(tmp_path)
    url = postgres.create_database("cluster")
    store = Store(tmp_path / "store", url)
    store.migrate()
    settings = {"TORCHLOOP_STORE": str(store.folder), "TORCHLOOP_DATABASE_URL": url, "TORCHLOOP_PROJECT": str(project)}
    with ray_nodes(3, settings) as nodes, worker(store, url, project=project):
        trial = Trial(store, nodes)
        with dispatcher(nodes) as first:
            goes_on_with_jobs_that_ray_refuses(trial)
            is_trained_on_two_nodes_and_outlives_one(trial)
            job, cancelled = trial.enqueue(ON_A_NODE), trial.enqueue(ON_A_NODE)
            trial.in_the_middle(cancelled, 1)
            trial.jobs.cancel(cancelled.id, now=time.time())
            assert trial.ended(cancelled).state == "cancelled"
            assert _node(trial.in_the_middle(job, 1)) in nodes.nodes
            goes_on_without_its_dispatcher(trial, job, psutil.Process(first.pid))
        with dispatcher(nodes):
            is_given_back_in_good_order(trial, job)
            outlives_its_node(trial, job)
            is_not_written_by_a_node_that_was_frozen(trial, job)
            paced.open_gate(store, project)
            others = [trial.enqueue() for _ in range(2)]
            done = trial.ended(job)
            assert (done.state, done.attempt, done.version) == ("succeeded", 4, 1)
            assert {(trial.ended(other).state, trial.ended(other).attempt) for other in others} == {("succeeded", 1)}
        assert len(Registry(store).versions(paced.MODEL)) == 3
    store.close()


def test_a_cluster_that_asks_for_no_token_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ray_nodes(0, {"RAY_AUTH_MODE": "disabled", "TORCHLOOP_STORE": str(tmp_path)}) as nodes:
        nodes.environ["RAY_AUTH_MODE"] = "token"
        with dispatcher(nodes, log=log) as process:
            assert process.wait(120) == 3
    assert "accepts processes without a token" in log.read_text()
