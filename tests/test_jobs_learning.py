"""Training on feedback: two jobs in one transaction, the second of which waits for the dataset of the first."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from models.dataset_options import DatasetOptions
from models.messages import Fit, Ingest, Message, Order
from service.data.datasets import Datasets
from service.data.erasure import Erasure, Which
from service.data.feedback import Entry, Feedback
from service.data.uploads import Uploads
from service.errors import Conflict, Invalid, LimitReached, NotFound
from service.jobs.ingests import Ingests, parameters
from service.jobs.learning import Learning, Lesson
from service.jobs.queue import Job, Jobs
from service.store.database import Store
from service.store.tables import capture_uses
from tests.captured import START, captured, prediction, registered, row
from tests.dataset_service import FILE, Scripted, made, refusal, work
from tests.fakes import LINE

LESSON = Lesson(
    model="line",
    config={"epochs": 1},
    ingest_config={"epochs": 1},
    dataset="field",
    built_in=None,
    since=0.0,
    weight=5,
    chosen={"since": None, "weight": 5},
    promote="trial",
)


def told(store: Store, *numbers: int, truth: Any = 8.0, at: float = START) -> None:
    entries = [
        Entry(id=prediction(one), key=None, position=0, truth=truth, kind="correction", drawn="random", by="me")
        for one in numbers
    ]
    assert Feedback(store).add("line", entries, at) == ["captured"] * len(numbers)


@pytest.fixture
def uploads(store: Store) -> Uploads:
    """Uploads of a store with the dataset field@1, and with captured samples 1 to 4."""
    registered(store, 1)
    captured(store, [row(number) for number in (1, 2, 3, 4)])
    uploads, jobs = Uploads(store, 10**6), Jobs(store)
    with uploads.whole() as part:
        part.path.write_bytes(FILE)
        Ingests(store, jobs).add_file(
            uploads,
            part.path,
            "line",
            "field",
            {},
            parameters("0" * 64, "auto", {}, 0.0),
            parent=None,
            key=None,
            submitter="",
            most=9,
            now=START,
        )
    assert work(store, made).dataset == "field@1"
    return uploads


@pytest.fixture
def learning(store: Store, uploads: Uploads) -> Learning:
    return Learning({"line": LINE}, store, Jobs(store), uploads)


def queue(learning: Learning, lesson: Lesson = LESSON, **options: Any) -> Job:
    return learning.queue(lesson, **{"submitter": "me", "most": 9, "now": START, **options})


def orders(store: Store, answer: Any = lambda order: made(order, "b" * 64)) -> tuple[Sequence[Order[Any]], Job]:
    """Have a worker do the next job. Returns the orders of its child, and the job."""
    child = Scripted(answer)
    return child.orders, work(store, child)


def nothing_to_do(store: Store) -> bool:
    return Jobs(store).claim("w", now=time.time(), monotonic_s=0, lease_s=9) is None


def test_the_job_waits_for_a_version_with_the_corrected_samples(store: Store, learning: Learning) -> None:
    told(store, 1, 2)
    job = queue(learning)
    assert (job.state, job.dataset, job.dataset_sha256, job.promote) == ("queued", "field", None, "trial")
    seen: list[Any] = []

    def answer(order: Order[Any]) -> Message:
        assert isinstance(order, Ingest)
        arrays = np.load(order.source)
        seen.append((order, arrays["x"].tolist(), arrays["y"].tolist()))
        return made(order, "b" * 64)

    ingest = orders(store, answer)[1]
    ((order, samples, truths),) = seen
    assert (samples, truths) == ([[2.0], [1.0]], [8.0, 8.0])
    assert (order.weight, order.from_built_in, order.parent.name) == (5, False, "a" * 64)
    assert order.options == DatasetOptions(label_column="y", split_column="split")
    assert (ingest.id, ingest.dataset) == (job.after, "field@2")
    with store.read() as connection:
        assert Datasets(store).find(connection, "line", "field@2").parent == "field@1"
    job = Jobs(store).get(job.id)
    assert (job.after, job.dataset, job.dataset_sha256) == (None, "field@2", "b" * 64)
    trained, job = orders(store, refusal())
    assert isinstance(trained[0], Fit)
    assert trained[0].dataset is not None
    assert trained[0].dataset.label == "field@2"


def test_nothing_trains_before_the_dataset_is_made(store: Store, learning: Learning) -> None:
    told(store, 1)
    job = queue(learning)
    assert Jobs(store).waiting([], now=0, monotonic_s=0, most=9, lost=lambda _: False).jobs[0].id == job.after
    assert len(Jobs(store).waiting([], now=0, monotonic_s=0, most=9, lost=lambda _: False).jobs) == 1
    claimed = Jobs(store).claim("w", now=time.time(), monotonic_s=0, lease_s=9)
    assert claimed is not None
    assert claimed.id == job.after
    assert nothing_to_do(store)


def test_an_ingest_that_fails_ends_the_job_in_words(store: Store, learning: Learning) -> None:
    told(store, 1)
    job = queue(learning)
    assert orders(store, refusal())[1].state == "failed"
    job = Jobs(store).get(job.id)
    assert (job.state, job.error) == (
        "failed",
        {"title": "No dataset", "detail": f"job {job.after}, which was to make its dataset, has failed"},
    )
    assert nothing_to_do(store)


def test_a_cancelled_ingest_ends_the_job_too(store: Store, learning: Learning) -> None:
    told(store, 1)
    job = queue(learning)
    assert job.after
    Jobs(store).cancel(job.after, now=START)
    ended = Jobs(store).get(job.id)
    assert ended.error is not None
    assert ended.error["detail"].endswith("has been cancelled")


def test_a_cancelled_job_leaves_the_dataset_to_be_made(store: Store, learning: Learning) -> None:
    told(store, 1)
    job = queue(learning)
    Jobs(store).cancel(job.id, now=START)
    assert orders(store)[1].dataset == "field@2"
    assert Jobs(store).get(job.id).state == "cancelled"


def test_a_worker_that_dies_leaves_nothing_half_made(store: Store, learning: Learning) -> None:
    told(store, 1)
    job = queue(learning)
    assert orders(store, lambda _: None)[1].state == "queued"
    assert Jobs(store).get(job.id).after == job.after
    assert orders(store)[1].dataset == "field@2"
    assert Jobs(store).get(job.id).dataset == "field@2"


def test_a_crash_in_the_transaction_leaves_neither_job_nor_file(store: Store, learning: Learning) -> None:
    told(store, 1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue(learning, then=crash)
    assert nothing_to_do(store)
    with store.read() as connection:
        assert connection.execute(select(capture_uses)).all() == []
        assert len(Datasets(store).needed_originals(connection, "line")[0]) == 1


def test_an_erasure_names_the_dataset_that_is_made_and_made(store: Store, learning: Learning) -> None:
    told(store, 1, 2)
    queue(learning)
    assert Erasure(store).erase("line", Which(id=prediction(1)), START).in_datasets == ["field"]
    orders(store)
    assert Erasure(store).erase("line", Which(id=prediction(2)), START).in_datasets == ["field@2"]


def test_samples_that_are_erased_meanwhile_are_not_learnt(store: Store, uploads: Uploads) -> None:
    told(store, 1, 2)
    erasing = [prediction(1)]

    class Slow(Uploads):
        """Uploads during which a sample is erased."""

        def offer(self, *given: Any) -> None:
            while erasing:
                Erasure(store).erase("line", Which(id=erasing.pop()), START)
            super().offer(*given)

    queue(Learning({"line": LINE}, store, Jobs(store), Slow(store, 10**6)))
    with store.read() as connection:
        assert connection.scalars(select(capture_uses.c.capture)).all() == [2]


def test_only_feedback_since_then_counts(store: Store, learning: Learning) -> None:
    told(store, 1)
    told(store, 2, at=START + 60)
    queue(learning, replace(LESSON, since=START + 30))
    with store.read() as connection:
        assert connection.scalars(select(capture_uses.c.capture)).all() == [2]
    with pytest.raises(Conflict, match="no labelled captures in that time"):
        queue(learning, replace(LESSON, since=START + 90))


def test_an_order_that_cannot_be_queued_says_why(store: Store, learning: Learning) -> None:
    with pytest.raises(Conflict, match=r"no labelled captures: have its answers captured"):
        queue(learning)
    told(store, 1, truth={"a": 1})
    with pytest.raises(Conflict, match="about several outputs"):
        queue(learning)
    told(store, 2)
    with pytest.raises(NotFound, match="field@7"):
        queue(learning, replace(LESSON, dataset="field@7"))
    with pytest.raises(LimitReached):
        queue(learning, most=1)
    assert nothing_to_do(store)
    told(store, 3, truth=[1.0, 2.0])
    with pytest.raises(Conflict, match="make no dataset"):
        queue(learning)


def test_a_repeated_key_returns_the_first_job(store: Store, learning: Learning) -> None:
    told(store, 1)
    first = queue(learning, key="k")
    assert queue(learning, key="k").id == first.id
    orders(store)
    assert queue(learning, key="k").id == first.id
    with pytest.raises(Invalid, match="sent with another order"):
        queue(learning, replace(LESSON, chosen={"since": None, "weight": 6}), key="k")
    with pytest.raises(Invalid, match="sent with another order"):
        Jobs(store).enqueue("line", {"epochs": 1}, "trial", dataset="field", key="k", now=START)


def test_data_of_the_recipe_is_the_parent_as_version_1(store: Store, learning: Learning) -> None:
    told(store, 1)
    queue(learning, replace(LESSON, dataset="lines@1", built_in="lines"))
    (order,), job = orders(store, lambda order: replace(made(order, "b" * 64), built_in=("lines",)))
    assert isinstance(order, Ingest)
    assert (order.from_built_in, order.parent, job.dataset) == (True, None, "lines@2")
    with store.read() as connection:
        assert Datasets(store).find(connection, "line", "lines").parent == "lines@1"
