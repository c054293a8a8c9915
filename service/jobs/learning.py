"""Training on feedback: labelled captures become a dataset version, grown from another one, and a job trains on it.

An ingest job makes the version, and the training job waits for it (`Job.after`). Both are queued in one transaction,
which also notes the captures, so that an erasure names the dataset. A crash leaves both jobs or none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, select

from models.checkpoints.files import file_digest
from models.example_files import Example, write_examples
from models.spec import ModelSpec
from service.data.captures import Labelled, examples, use
from service.data.datasets import Datasets
from service.data.feedback import Kind
from service.data.uploads import Uploads
from service.delivery.gate import Policy
from service.errors import Conflict
from service.jobs.ingests import parameters
from service.jobs.queue import Job, Jobs
from service.jobs.rows import added, require_same, with_key
from service.store.database import Store
from service.store.tables import captures

_KINDS: tuple[Kind, ...] = ("correction", "audit", "outcome")
_TRIES = 3  # if captures are erased meanwhile
Then = Callable[[Connection, Job], None]


class _Erased(Exception):
    """Captures have lost their content since they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """An order to train on a dataset and on the labelled captures of a model.

    config         complete; `ingest_config` also, by which the ingest knows the built-in data
    dataset        the dataset that grows, as name@version or a bare name
    built_in       its name if it is data of the recipe, else None
    since          captures with feedback from that time on, in seconds since 1970
    weight         how often training repeats them in the train split
    chosen         the choice as the caller sent it
    """

    model: str
    config: Mapping[str, Any]
    ingest_config: Mapping[str, Any]
    dataset: str
    built_in: str | None
    since: float
    weight: int
    chosen: Mapping[str, Any]
    promote: Policy
    promote_bounds: Mapping[str, Any] | None = None
    tensorboard: bool = False
    resources: Mapping[str, Any] | None = None

    def row(self) -> dict[str, Any]:
        """Return the columns that tell whether a repeat has the same order."""
        return {
            "kind": "train",
            "model": self.model,
            "config": dict(self.config),
            "promote": self.promote,
            "promote_bounds": self.promote_bounds,
            "tensorboard": self.tensorboard,
            "resources": self.resources,
            "feedback": {"dataset": self.dataset, **self.chosen},
        }


class Learning:
    """Queues training on feedback."""

    def __init__(self, specs: Mapping[str, ModelSpec], store: Store, jobs: Jobs, uploads: Uploads) -> None:
        self._specs = specs
        self._store = store
        self._datasets = Datasets(store)
        self._jobs = jobs
        self._uploads = uploads

    def queue(
        self,
        lesson: Lesson,
        *,
        key: str | None = None,
        submitter: str,
        most: int,
        now: float,
        then: Then | None = None,
    ) -> Job:
        """Queue both jobs, or return the first training job with the same idempotency key. `then` takes part in the
        transaction, and is given the training job.

        Raises Conflict if no capture is labelled, NotFound for an unknown dataset, Invalid for a repeated key with
        another order, LimitReached, StoreUnavailable.
        """
        for _ in range(_TRIES):
            with self._store.read() as connection:
                if (first := _first(connection, lesson, key)) is not None:
                    return first
                if lesson.built_in is None:
                    self._datasets.find(connection, lesson.model, lesson.dataset)
                found = list(examples(connection, lesson.model, since=lesson.since, kinds=_KINDS))
            usable = [one for one in found if not isinstance(one.truth.value, dict)]
            if not usable:
                raise _nothing(lesson, found)
            try:
                return self._written(lesson, usable, key, submitter, most, now, then)
            except _Erased:
                continue
        raise Conflict(f"captured samples of {lesson.model} are being erased: send the order again")

    def _written(
        self,
        lesson: Lesson,
        found: Sequence[Labelled],
        key: str | None,
        submitter: str,
        most: int,
        now: float,
        then: Then | None,
    ) -> Job:
        """Write the samples to a file, the latest truths first, which win over others about the same content."""
        rows = [Example(one.entry, one.truth.value) for one in reversed(found)]
        with self._uploads.whole() as part:
            try:
                options = write_examples(part.path, self._specs[lesson.model], rows)
            except ValueError as err:
                raise Conflict(f"the labelled captures of {lesson.model} make no dataset: {err}") from err
            sha256 = file_digest(part.path)
            self._uploads.offer(part.path, lesson.model, sha256)
            ingest = parameters(sha256, "auto", asdict(options), allow_rejected=1.0)
            ingest |= {"weight": lesson.weight, "from_built_in": lesson.built_in is not None}
            with self._store.files(), self._store.write() as connection:
                if (first := _first(connection, lesson, key)) is not None:
                    return first
                numbers = [one.capture for one in found]
                _require_contents(connection, numbers)
                name, pinned = self._pinned(connection, lesson, ingest)
                place: dict[str, Any] = {"submitter": submitter, "most": most, "now": now}
                made = self._jobs.enqueue_ingest(
                    connection, lesson.model, name, lesson.ingest_config, pinned, job_id=uuid4().hex, **place
                )
                use(connection, made.id, list(dict.fromkeys(numbers)))
                self._uploads.keep_original(part.path, lesson.model, sha256)
                row = {**lesson.row(), "dataset": name, "after": made.id, "idempotency_key": key}
                job = added(connection, row, **place)
                if then is not None:
                    then(connection, job)
                return job

    def _pinned(
        self, connection: Connection, lesson: Lesson, ingest: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Return the name of the dataset, and the parameters of the ingest with its parent."""
        if lesson.built_in is not None:
            return lesson.built_in, {**ingest, "parent": f"{lesson.built_in}@1", "parent_sha256": None}
        parent = self._datasets.find(connection, lesson.model, lesson.dataset)
        return parent.name, {**ingest, "parent": parent.label, "parent_sha256": parent.sha256}


def _first(connection: Connection, lesson: Lesson, key: str | None) -> Job | None:
    """Return the first job with an idempotency key. Raises Invalid if it had another order."""
    first = with_key(connection, key)
    if first is not None:
        require_same(first, same=all(getattr(first, name) == value for name, value in lesson.row().items()))
    return first


def _require_contents(connection: Connection, numbers: Sequence[int]) -> None:
    there = 0
    for at in range(0, len(numbers), 500):
        mine = captures.c.number.in_(numbers[at : at + 500])
        there += connection.scalar(select(func.count()).where(mine, captures.c.content.is_not(None))) or 0
    if there != len(numbers):
        raise _Erased


def _nothing(lesson: Lesson, found: Sequence[Labelled]) -> Conflict:
    if found:
        return Conflict(f"the truths of {lesson.model} are about several outputs: a recipe learns one of them")
    since = " in that time" if lesson.since else ""
    return Conflict(
        f"{lesson.model} has no labelled captures{since}: have its answers captured with PUT "
        f"/models/{lesson.model}/capture, and send truths to POST /models/{lesson.model}/feedback"
    )
