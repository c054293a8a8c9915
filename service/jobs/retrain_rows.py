"""Settings by which models are retrained on their feedback, and the watermark: the last feedback that was counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, func, select, update

from service.delivery.gate import Policy
from service.store.database import Store
from service.store.feed import append
from service.store.retrain_tables import retrain
from service.store.tables import feedback

AT_MOST_EVERY_S = 6 * 3600.0
_LONGEST_FAULT = 2000
Fence = Callable[[Connection], None]  # raises if this process does not lead any more


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSettings:
    """When a model is retrained, and by what order. Without corrections, every_s and on_drift it never is.

    corrections      number of new ones that queues a job
    every_s          seconds since the last job, after which new labelled samples queue one
    on_drift         drift of the live version queues one, if there are new labelled samples; it never promotes
    at_most_every_s  least seconds between two jobs
    dataset          that grows, as a bare name (its newest version) or name@version
    """

    corrections: int | None = None
    every_s: float | None = None
    on_drift: bool = False
    at_most_every_s: float = AT_MOST_EVERY_S
    weight: int = 1
    dataset: str | None = None
    promote: Policy = "trial"
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        """Whether something queues a job."""
        return self.corrections is not None or self.every_s is not None or self.on_drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A row. `fault` says why the last try queued no job; `submitter` is the name of the key that set it."""

    model: str
    settings: RetrainSettings
    changed_at: float
    submitter: str
    watermark: int
    queued_at: float | None
    job: str | None
    reason: str | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class News:
    """Feedback since a watermark about samples that were captured: corrections, entries of all kinds, last number."""

    corrections: int
    entries: int
    last: int


class RetrainRows:
    """The table of the settings. Raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Kept]:
        """Return the settings of each model that has any."""
        with self._store.read() as connection:
            return [_kept(row) for row in connection.execute(select(retrain).order_by(retrain.c.model)).mappings()]

    def of(self, model: str) -> tuple[Kept | None, News]:
        """Return the settings of a model, None if it has none, and the news since its watermark."""
        with self._store.read() as connection:
            kept = _one(connection, model)
            return kept, news(connection, model, 0 if kept is None else kept.watermark)

    def set(self, model: str, settings: RetrainSettings, *, by: str, submitter: str, now: float) -> None:
        """Replace the settings of a model; the watermark stays. Other settings than before are in the feed."""
        own = {one.name: getattr(settings, one.name) for one in fields(RetrainSettings)}
        values = {**own, "config": dict(settings.config), "changed_at": now, "changed_by": by, "submitter": submitter}
        with self._store.write() as connection:
            before = _one(connection, model)
            if settings != (RetrainSettings() if before is None else before.settings):
                append(connection, "retrain.changed", model, now, {"by": by, **own, "config": dict(settings.config)})
            changed = update(retrain).where(retrain.c.model == model).values(**values, fault=None)
            if connection.execute(changed).rowcount == 0:
                connection.execute(retrain.insert().values(model=model, watermark=0, **values))

    def note_fault(self, kept: Kept, due: str, fault: str, now: float, fence: Fence) -> None:
        """Note why the job that was `due` was not queued, also in the feed, once for the same fault in a row.

        Does nothing if settings or watermark have changed. Raises what `fence` raises.
        """
        same, said = retrain.c.watermark == kept.watermark, fault[:_LONGEST_FAULT]
        row = retrain.c.model == kept.model, retrain.c.changed_at == kept.changed_at, same
        other = retrain.c.fault.is_distinct_from(said)
        with self._store.write() as connection:
            fence(connection)
            if connection.execute(update(retrain).where(*row, other).values(fault=said)).rowcount == 1:
                append(connection, "retrain.failed", kept.model, now, {"due": due, "reason": said})


def news(connection: Connection, model: str, watermark: int) -> News:
    """Count the current feedback with a greater number than the watermark.

    Feedback that came before its capture is counted if that was written before the watermark passed it.
    """
    corrections = func.count().filter(feedback.c.kind == "correction")
    query = select(corrections, func.count(), func.max(feedback.c.number)).where(
        feedback.c.model == model,
        feedback.c.number > watermark,
        feedback.c.replaced_at.is_(None),
        feedback.c.capture.is_not(None),
    )
    found = connection.execute(query).one()
    return News(found[0], found[1], found[2] or watermark)


def move(connection: Connection, kept: Kept, last: int, *, job: str, reason: str, now: float) -> bool:
    """Move the watermark in the transaction that queues a job. Returns False if settings or watermark have changed."""
    row = retrain.c.model == kept.model, retrain.c.changed_at == kept.changed_at
    values = {"watermark": last, "queued_at": now, "job": job, "reason": reason, "fault": None}
    changed = update(retrain).where(*row, retrain.c.watermark == kept.watermark).values(**values)
    return connection.execute(changed).rowcount == 1


def _one(connection: Connection, model: str) -> Kept | None:
    row = connection.execute(select(retrain).where(retrain.c.model == model)).mappings().one_or_none()
    return None if row is None else _kept(row)


def _kept(row: Mapping[Any, Any]) -> Kept:
    settings = RetrainSettings(**{one.name: row[one.name] for one in fields(RetrainSettings)})
    own = {one.name: row[one.name] for one in fields(Kept) if one.name != "settings"}
    return Kept(settings=settings, **own)
