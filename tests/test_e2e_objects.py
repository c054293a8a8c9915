"""A job on two machines without a common folder: the second one resumes it from the object store, or waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.objects import S3Server
from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.jobs.queue import FINAL, Jobs
from service.store.database import Store
from tests import paced
from tests.fakes import ROOT, started_before
from tests.waiting import until
from tests.workers import LEASE_S, worker

pytestmark = pytest.mark.slow


def test_a_killed_job_is_resumed_on_another_machine_and_waits_for_the_object_store(
    tmp_path: Path, s3: S3Server
) -> None:
    project, url, artifacts = paced.write_project(_made(tmp_path / "project")), _url(tmp_path), s3.create_bucket()
    a, b = (Store(started_before(tmp_path / name, str(project)), url, artifacts=artifacts) for name in "ab")
    a.migrate()
    jobs = Jobs(a)
    job = jobs.enqueue(paced.MODEL, paced.config(a), "always", now=time.time())
    assert a.storage.copies
    objects = a.storage.copies.objects
    with worker(a, url, project=project, artifacts=artifacts) as first:
        until(lambda: objects.below(f"jobs/{job.id}/resume-1.pt"))
        first.kill()
    paced.open_gate(a, project)
    with worker(b, url, project=project, artifacts=artifacts):
        until(lambda: [event for event in jobs.events(job.id, kind="progress") if event.attempt == 2])
        s3.is_ill = True
        needed = s3.failed + 3 * 3 * LEASE_S  # at least a second passes between two attempts of three requests each
        until(lambda: s3.failed >= needed or jobs.get(job.id).state in FINAL)
        assert jobs.get(job.id).state == "running"
        s3.is_ill = False
        until(lambda: jobs.get(job.id).state in FINAL)
    done = jobs.get(job.id)
    assert (done.state, done.attempt, done.version) == ("succeeded", 2, 1)
    steps = [event.data["step"] for event in jobs.events(job.id, kind="progress") if event.attempt == 2]
    assert steps[0] > 1, "it began at the beginning"
    until(lambda: not [found for found in objects.below(f"jobs/{job.id}") if "resume" in found.key])
    version = Registry(a).version(paced.MODEL, 1)
    assert Registry(a).fetched(version).is_file()
    assert Record(**version.record).sha256
    for store in (a, b):
        store.close()


@pytest.mark.parametrize("module", ["service", "service.worker"])
def test_a_process_does_not_start_with_an_object_store_that_cannot_be_used(
    module: str, s3: S3Server, tmp_path: Path
) -> None:
    environ = {**os.environ, "TORCHLOOP_STORE": str(tmp_path), "TORCHLOOP_ARTIFACTS": s3.create_bucket()}
    s3.honours_conditions = False
    try:
        command = [sys.executable, "-m", module]
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    finally:
        s3.honours_conditions = True
    assert ended.returncode == 2
    assert "torchloop: TORCHLOOP_ARTIFACTS: the object store ignores conditional puts" in ended.stderr


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _url(folder: Path) -> str:
    return f"sqlite:///{folder}/rows.db"
