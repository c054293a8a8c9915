"""Output of attempts, from the subprocess to the events of the job."""

import time
from functools import partial
from pathlib import Path

from models.messages import Failed, FailureKind
from service.execution.process import Printed
from service.jobs.output import MAX_CHARS, Output, folders
from service.jobs.queue import Jobs
from service.store.database import Store
from tests.dataset_service import Scripted, work
from tests.fakes import ROOT
from tests.templates import migrated


def test_output_is_bounded_and_says_where_the_rest_is() -> None:
    output = Output({})
    output.add("a" * (MAX_CHARS - 2))
    output.add("bcd")
    output.add("more")
    assert [len(text) for text in output.waiting()[:2]] == [MAX_CHARS - 2, 2]
    assert output.waiting()[2:] == ("... the rest is in the log of the worker",)
    output.stored()
    output.add("more")
    assert output.waiting() == ()


def test_output_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    output = Output(folders(tmp_path / "link" / "store", Path("data")))
    output.add(f'File "{ROOT}/training/x.py"\n{tmp_path}/link/store/a {tmp_path}/real/store/b {ROOT}/data/c\0 {ROOT}y')
    assert output.waiting() == (f'File "./training/x.py"\nSTORE/a STORE/b DATA/c {ROOT}y',)
    output.stored()
    output.add("\0")
    assert output.waiting() == ()


def answered(answer: Failed | None, _: object) -> Failed | None:
    return answer


def test_what_the_subprocess_prints_becomes_events_of_its_job(tmp_path: Path) -> None:
    store = Store(migrated(tmp_path))
    jobs = Jobs(store)
    failed = Failed(kind=FailureKind.TRAINING, title="No", detail="it failed")
    for answer in (failed, None):
        job = jobs.enqueue("line", {}, "never", now=time.time())
        child = Scripted(partial(answered, answer))
        child.told(Printed("warning: slow"), Printed(f"in {tmp_path}"))
        work(store, child)
        told = [event.data["output"] for event in jobs.events(job.id, kind="log")]
        assert told == ["warning: slow", "in STORE"], "the last words of a process that died matter most"
        jobs.cancel_queued(now=time.time())
    store.close()
