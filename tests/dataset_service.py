"""The service side of datasets in tests: the application, a worker in process, and a child that answers by a script."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from starlette.testclient import TestClient

from models.checkpoints.storage import Storage
from models.messages import (
    DatasetSummary,
    Failed,
    FailureKind,
    Ingest,
    Ingested,
    Message,
    Order,
    RefusalReason,
    RefusedRow,
)
from service.execution.process import Child, Printed
from service.execution.recipes import RecipeSchema
from service.jobs.queue import Job, Jobs
from service.jobs.worker import Worker
from service.store.database import Store
from tests.fakes import LINE, save_line
from tests.serving import LINE_RECIPE, serving

SUMMARY = DatasetSummary(
    format="csv",
    schema={"entry": {"shape": [1]}},
    examples={"train": 8, "validation": 1, "test": 1},
    by_label={},
    rows=12,
    rejected=2,
    duplicates=0,
    conflicting_labels=0,
    added=10,
    by_reason=(
        RefusalReason(
            title="Not a number",
            rows=2,
            first=(RefusedRow(row=3, column="x", value="abc", detail="x must be a number"),),
        ),
    ),
    warnings=("few rows",),
    reference={"features": [[0.0], [4.0]]},
)
VERSIONS = "/models/line/datasets/field/versions"
FILE = b"x,value\n1,3\n"
BUILT_IN = {"lines": {"train": 8, "validation": 1, "test": 1}}
REFUSED = [
    {
        "title": "Not a number",
        "row": row,
        "column": "x",
        "value": "abc",
        "detail": "x must be a number",
        "picture": False,
    }
    for row in (3, 7)
]

Answer = Callable[[Order[Any]], Message | Sequence[Message] | None]


async def recipes() -> Mapping[str, RecipeSchema]:
    """Return recipes of `line`, which learns values, and of `fixed`, which learns no files and declares its data."""
    return {"line": replace(LINE_RECIPE, target="value"), "fixed": replace(LINE_RECIPE, built_in=BUILT_IN)}


class Scripted(Child):
    """A subprocess without a process. Answers each order by a function: messages, or None if it dies of SIGKILL."""

    def __init__(self, answer: Answer) -> None:
        self.exit: int | None = None
        self._died = False
        self.orders: list[Order[Any]] = []
        self._answer = answer
        self._told: list[Message | Printed] = []

    def told(self, *messages: Message | Printed) -> None:
        """Tell messages before the answer."""
        self._told.extend(messages)

    def send(self, order: Order[Any]) -> None:
        self.orders.append(order)
        answer = self._answer(order)
        if answer is None:
            self._died = True
        else:
            self._told.extend(answer if isinstance(answer, Sequence) else [answer])

    def messages(self, timeout_s: float) -> list[Message | Printed]:  # noqa: ARG002
        told, self._told = self._told, []
        self.exit = -9 if self._died else None
        return told

    def stop(self) -> None:
        pass


def made(
    order: Order[Any],
    sha256: str = "a" * 64,
    summary: DatasetSummary = SUMMARY,
    refused: Sequence[Mapping[str, Any]] = REFUSED,
) -> Ingested:
    """Write the folder of a version as the training side does, as far as the service reads it."""
    assert isinstance(order, Ingest)
    assert order.source.is_file()
    folder = Path("datasets") / order.model / sha256
    (order.store.root / folder).mkdir(parents=True, exist_ok=True)
    report = Storage.at(order.store).report(order.model, order.job)
    report.parent.mkdir(exist_ok=True)
    report.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in refused))
    return Ingested(sha256=sha256, folder=folder.as_posix(), summary=summary)


def refusal(title: str = "Too many rows refused", summary: DatasetSummary | None = SUMMARY) -> Answer:
    """Return the answer of an ingest that refuses the file."""
    return lambda _: Failed(kind=FailureKind.DATASET, title=title, detail="row 3 is bad", summary=summary)


def work(store: Store, answer: Answer | Child) -> Job:
    """Have a worker do the next job. Returns the job as it is then."""
    child = answer if isinstance(answer, Child) else Scripted(answer)
    jobs = Jobs(store)
    job = jobs.claim("w", now=time.time(), monotonic_s=time.monotonic(), lease_s=1000)
    assert job is not None
    Worker(store, store.folder, "w", start_child=lambda: child).work(job)
    return jobs.get(job.id)


@contextmanager
def serving_lines(folder: Path) -> Iterator[TestClient]:
    """Serve `line`, which learns files, `fixed`, which does not, and `bare`, which has no recipe, from folder/store."""
    save_line(folder / "shipped")
    specs = {"line": LINE, "fixed": LINE, "bare": LINE}
    with serving(folder / "shipped", specs, recipes, store=folder / "store") as client:
        yield client


def add(client: TestClient, store: Store, sha256: str = "a" * 64, content: bytes = FILE, **params: Any) -> Any:
    """Make a version. Returns the job."""
    answer = client.post(VERSIONS, content=content, params=params)
    assert answer.status_code == 202, answer.text
    work(store, lambda order: made(order, sha256))
    return client.get(answer.headers["location"]).json()


def detail(answer: Any, status: int) -> str:
    """Return the detail of an answer, which must be a problem with that status."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    return str(answer.json()["detail"])
