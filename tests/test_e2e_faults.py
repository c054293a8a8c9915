"""Fault injection: workers, fits, web processes, database and disk fail, and no job or version is lost."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.postgres import Postgres
from service.delivery.registry import Registry
from service.jobs.queue import FINAL, Job, Jobs
from service.store.database import Store
from tests import paced
from tests.fakes import running_server, started_before
from tests.waiting import until
from tests.workers import LEASE_S, worker

pytestmark = pytest.mark.slow

# What the queue does on each database is held by test_jobs_queue: these are about processes and files.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project folder of the model `paced`."""
    return paced.write_project(tmp_path_factory.mktemp("project"))


def enqueue(store: Store, model: str, config: Mapping[str, Any]) -> Job:
    return Jobs(store).enqueue(model, config, "if_better", now=time.time())


def enqueue_paced(store: Store) -> Job:
    """Queue a job that comes to its end after `paced.open_gate`."""
    return enqueue(store, paced.MODEL, paced.config(store))


def finished(store: Store, job: Job) -> Job:
    def over() -> Job | None:
        now = Jobs(store).get(job.id)
        return now if now.state in FINAL else None

    found: Job = until(over)
    return found


def in_the_middle(store: Store, job: Job, attempt: int = 1) -> None:
    """Return when the fit is under way and has a resume point."""
    point = store.folder / "jobs" / job.id / f"resume-{attempt}.pt"
    until(lambda: point.exists() and Jobs(store).get(job.id).state == "running")


def fit_of(process: "subprocess.Popen[bytes]") -> psutil.Process:
    """The child in which a worker fits."""
    children: list[psutil.Process] = until(lambda: psutil.Process(process.pid).children())
    return children[0]


def freeze(process: "subprocess.Popen[bytes]", store: Store, url: str) -> None:
    """SIGSTOP, but not while it holds SQLite's write lock, which nobody could take from it, as PostgreSQL does."""
    while True:
        process.send_signal(signal.SIGSTOP)
        if url:
            return
        with closing(sqlite3.connect(store.folder / "torchloop.db", timeout=0.2)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
            else:
                return


def sha256(store: Store, job: Job) -> str:
    assert job.version is not None
    return str(Registry(store).version(job.model, job.version).record["sha256"])


@on_sqlite
def test_a_killed_workers_job_is_resumed_and_ends_with_the_same_weights(
    store: Store, database_url: str, project: Path
) -> None:
    job = enqueue_paced(store)
    with worker(store, database_url, project=project) as first:
        in_the_middle(store, job)
        fit = fit_of(first)
        first.kill()
        until(lambda: not fit.is_running())  # the fit ends with its worker
    paced.open_gate(store, project)
    with worker(store, database_url, project=project):
        resumed = finished(store, job)
        assert (resumed.state, resumed.attempt) == ("succeeded", 2)
        undisturbed = finished(store, enqueue_paced(store))
    assert undisturbed.attempt == 1
    assert sha256(store, resumed) == sha256(store, undisturbed)
    steps = [event.data["step"] for event in Jobs(store).events(job.id, kind="progress") if event.attempt == 2]
    assert steps[0] > 1, "it began at the beginning"
    assert not list((store.folder / "jobs" / job.id).glob("resume-*"))


@on_sqlite
def test_a_killed_fit_is_resumed_by_the_same_worker(store: Store, database_url: str, project: Path) -> None:
    job = enqueue_paced(store)
    with worker(store, database_url, project=project) as process:
        in_the_middle(store, job)
        fit_of(process).kill()
        paced.open_gate(store, project)
        done = finished(store, job)
    assert (done.state, done.attempt) == ("succeeded", 2)
    reasons = [event.data.get("reason", "") for event in Jobs(store).events(job.id, kind="state")]
    assert any("SIGKILL" in reason for reason in reasons)


@on_sqlite
def test_a_fit_that_is_killed_every_time_fails_with_the_reason(store: Store, database_url: str, project: Path) -> None:
    job = enqueue_paced(store)
    with worker(store, database_url, project=project) as process:
        killed: set[int] = set()
        while len(killed) < 3:
            fit = until(lambda: {child.pid: child for child in psutil.Process(process.pid).children()} or None)
            for pid, child in fit.items():
                if pid not in killed:
                    child.kill()
                    killed.add(pid)
        done = finished(store, job)
    assert done.state == "failed"
    assert done.error is not None
    assert "SIGKILL" in done.error["detail"]


def test_a_frozen_worker_that_wakes_after_its_lease_finishes_nothing(
    store: Store, database_url: str, project: Path
) -> None:
    job = enqueue_paced(store)
    with (
        worker(store, database_url, project=project) as first,
        worker(store, database_url, project=project) as second,
    ):
        in_the_middle(store, job)
        owner = str(Jobs(store).get(job.id).worker)
        frozen, other = (first, second) if owner.endswith(f"-{first.pid}") else (second, first)
        fit = fit_of(frozen)
        freeze(frozen, store, database_url)
        paced.open_gate(store, project)
        done = finished(store, job)
        frozen.send_signal(signal.SIGCONT)
        until(lambda: not fit.is_running())  # the woken worker saw that the job is not its own, and stopped its fit
        assert (done.state, done.attempt) == ("succeeded", 2)
        assert str(done.worker).endswith(f"-{other.pid}")
        assert Jobs(store).get(job.id) == done
        assert [version.job for version in Registry(store).versions(job.model)] == [job.id]
        assert finished(store, enqueue(store, "regressor", {"epochs": 5})).state == "succeeded"


@on_sqlite
def test_a_running_job_is_cancelled_before_its_end_and_its_fit_is_over_by_then(
    store: Store, database_url: str, project: Path
) -> None:
    """`python -m benchmarks cancel` measures how soon."""
    job = enqueue_paced(store)
    with worker(store, database_url, project=project) as process:
        in_the_middle(store, job)
        fit = fit_of(process)
        Jobs(store).cancel(job.id, now=time.time())
        done = finished(store, job)
        assert done.state == "cancelled"
        assert not fit.is_running()
    last = Jobs(store).events(job.id, kind="progress")[-1].data
    assert last["step"] < last["steps"]
    assert not Registry(store).versions(job.model)
    assert not list((store.folder / "jobs" / job.id).glob("resume-*"))


@on_sqlite
def test_a_worker_that_is_stopped_gives_its_job_back_in_good_order(
    store: Store, database_url: str, project: Path
) -> None:
    job = enqueue_paced(store)
    with worker(store, database_url, project=project):
        in_the_middle(store, job)
    back = Jobs(store).get(job.id)
    assert (back.state, back.released, back.error) == ("queued", 1, None)
    paced.open_gate(store, project)
    with worker(store, database_url, project=project):
        assert finished(store, job).state == "succeeded"


def test_jobs_outlive_a_stop_of_the_database(postgres: Postgres, tmp_path: Path, project: Path) -> None:
    url = postgres.create_database("faults")
    store = Store(tmp_path, url)
    store.migrate()
    job = enqueue_paced(store)
    settings = {"TORCHLOOP_STORE": str(tmp_path), "TORCHLOOP_DATABASE_URL": url}
    with worker(store, url, project=project), running_server(settings) as web:
        in_the_middle(store, job)
        postgres.stop()
        paced.open_gate(store, project)
        try:
            gone_at = time.monotonic()
            asked = 0
            while asked < 20 or time.monotonic() < gone_at + 2 * LEASE_S:
                answer = httpx.post(f"{web}/predict/regressor", json={"inputs": [[0.5]]})
                assert answer.status_code == 200
                asked += 1
            assert httpx.get(f"{web}/health/ready").status_code == 200
            refused = httpx.post(f"{web}/train", json={"model": "regressor"}, timeout=30)
            assert (refused.status_code, refused.json()["title"]) == (503, "Store unavailable")
        finally:
            postgres.start()
        done = finished(store, job)
        assert (done.state, done.attempt, done.version) == ("succeeded", 1, 1)
    store.close()


@pytest.mark.parametrize("fault", [Postgres.read_only, Postgres.frozen])
def test_a_job_outlives_a_database_that_refuses_writes_or_freezes(
    postgres: Postgres,
    tmp_path: Path,
    fault: Callable[[Postgres, str], AbstractContextManager[None]],
    project: Path,
) -> None:
    url = postgres.create_database(fault.__name__)
    store = Store(tmp_path, url)
    store.migrate()
    job = enqueue_paced(store)
    lease_s = 3 * LEASE_S
    with worker(store, url, lease_s=lease_s, project=project) as first:
        in_the_middle(store, job)
        with worker(store, url, lease_s=lease_s, project=project) as second:
            began = time.monotonic()
            with fault(postgres, fault.__name__):
                paced.open_gate(store, project)
                until(lambda: time.monotonic() > began + 1.5 * lease_s)
            done = finished(store, job)
            assert (first.poll(), second.poll()) == (None, None), "a worker ended"
    assert (done.state, done.attempt) == ("succeeded", 1), "the job was taken from its worker"
    store.close()


@on_sqlite
def test_an_unwritable_store_fails_the_job_with_that_reason(store: Store, database_url: str) -> None:
    (store.folder / "checkpoints").mkdir()
    (store.folder / "checkpoints" / "regressor").write_text("in the way")
    job = enqueue(store, "regressor", {"epochs": 5})
    with worker(store, database_url):
        done = finished(store, job)
    assert (done.state, done.attempt) == ("failed", 1)
    assert done.error is not None
    assert "cannot be written" in done.error["detail"]
    assert str(store.folder) not in done.error["detail"]


def test_a_full_disk_fails_the_job_and_leaves_nothing_half_written(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database("full")
    store = Store(tmp_path, url)
    store.migrate()
    job = enqueue(store, "mnist", {"dataset": "digits", "limit": 50})
    limit = ("bash", "-c", 'ulimit -f 64; exec "$@"', "bash")  # files of at most 64 KiB; the weights are 116
    with worker(store, url, limit):
        done = finished(store, job)
    assert (done.state, done.attempt) == ("failed", 1)
    assert done.error is not None
    assert "cannot be written" in done.error["detail"]
    assert not list(tmp_path.rglob("*.pt*"))
    assert not list(tmp_path.rglob(".*"))
    assert not Registry(store).versions("mnist")
    store.close()


@on_sqlite
def test_a_hyperparameter_that_the_recipe_refuses_fails_the_job_at_once(store: Store, database_url: str) -> None:
    job = enqueue(store, "regressor", {"lr": 100.0, "epochs": 50})
    other = enqueue(store, "regressor", {"epochs": 0})
    with worker(store, database_url):
        diverged, refused = finished(store, job), finished(store, other)
    assert (diverged.state, diverged.attempt) == ("failed", 1)
    assert "lower lr" in str(diverged.error)
    assert "epochs" in str(refused.error)


@pytest.fixture
def embedded(tmp_path: Path, project: Path) -> Mapping[str, str]:
    """Settings of a service with a worker and the model `paced`, and its store."""
    started_before(tmp_path, str(project))
    return {"TORCHLOOP_STORE": str(tmp_path), "TORCHLOOP_WORKER": "embedded", "TORCHLOOP_PROJECT": str(project)}


def test_an_embedded_worker_that_dies_is_started_again(
    tmp_path: Path, project: Path, embedded: Mapping[str, str]
) -> None:
    store = Store(tmp_path)
    with running_server(embedded) as url:
        order = {"model": paced.MODEL, "config": paced.config(store)}
        job_id = httpx.post(f"{url}/train", json=order, timeout=30).json()["id"]
        in_the_middle(store, Jobs(store).get(job_id))
        one_below_us("service.worker").kill()
        paced.open_gate(store, project)
        assert httpx.post(f"{url}/predict/regressor", json={"inputs": [[0.5]]}).status_code == 200
        done = finished(store, Jobs(store).get(job_id))
    assert (done.state, done.attempt) == ("succeeded", 2)
    store.close()


def one_below_us(module: str) -> psutil.Process:
    """The one process of ours that runs `python -m module`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if process.cmdline()[1:3] == ["-m", module]:
                found.append(process)
    (one,) = found
    return one


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_web_process_that_dies_takes_no_job_with_it(
    tmp_path: Path, stop: signal.Signals, project: Path, embedded: Mapping[str, str]
) -> None:
    store = Store(tmp_path)
    with running_server(embedded) as url:
        order = {"model": paced.MODEL, "config": paced.config(store)}
        ids = [httpx.post(f"{url}/train", json=order, timeout=30).json()["id"]]
        ids += [httpx.post(f"{url}/train", json={"model": "classifier"}, timeout=30).json()["id"]]
        running = Jobs(store).get(ids[0])
        in_the_middle(store, running)
        web = one_below_us("service")
        below = web.children(recursive=True)
        web.send_signal(stop)
        psutil.wait_procs([web, *below], timeout=30)
        assert not any(process.is_running() for process in below), "a worker or a fit was left behind"
    paced.open_gate(store, project)
    with running_server(embedded):
        done = [finished(store, Jobs(store).get(job_id)) for job_id in ids]
    assert [job.state for job in done] == ["succeeded", "succeeded"]
    store.close()


def test_the_worker_inherits_no_api_key(tmp_path: Path) -> None:
    settings = {
        "TORCHLOOP_STORE": str(tmp_path),
        "TORCHLOOP_WORKER": "embedded",
        "TORCHLOOP_API_KEYS": "train:SECRET",
    }
    with running_server(settings) as url:
        worker_process: psutil.Process = until(lambda: one_below_us("service.worker"))
        assert "SECRET" not in str(worker_process.environ())
        key = {"Authorization": "Bearer SECRET"}
        order = {"model": "regressor", "config": {"epochs": 2}}
        job = httpx.post(f"{url}/train", json=order, headers=key, timeout=30).json()["id"]
        store = Store(tmp_path)
        assert finished(store, Jobs(store).get(job)).state == "succeeded"
        store.close()
