"""Trials: a candidate that proves itself on live traffic before it is promoted.

A trial goes through its stages, shadow then canary, and ends as promoted, rolled_back or aborted; it may be paused and
resumed. Each transition is one transaction with its event, and with the promotion if the candidate goes live.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, select, update

from service.delivery.registry import Registry
from service.delivery.trial_rows import (
    FINAL,
    Accuracy,
    Agreement,
    Arm,
    Conditions,
    Counts,
    Errors,
    FaultKind,
    Latency,
    Overtaken,
    Stage,
    State,
    Trial,
    TrialEvent,
    Undecided,
    add_event,
    all_open,
    change,
    open_of,
    required,
    row_of,
    tell,
    trial_of,
)
from service.errors import Conflict
from service.store.database import Store
from service.store.tables import trial_differences, trial_events, trials

__all__ = [
    "DEFAULT_STAGES",
    "FINAL",
    "Accuracy",
    "Agreement",
    "Arm",
    "Conditions",
    "Counts",
    "Errors",
    "FaultKind",
    "Latency",
    "Opening",
    "Overtaken",
    "Stage",
    "State",
    "Trial",
    "TrialEvent",
    "Trials",
]
DEFAULT_STAGES = (
    Stage(shadow=1.0, for_s=600, samples=500),
    Stage(share=0.05, for_s=600, samples=200),
    Stage(share=0.25, for_s=600, samples=500),
)
DEFAULT_CONDITIONS = Conditions(errors=Errors())
Fence = Callable[[Connection], None]  # raises LeadershipLost in a transaction whose writer does not lead any more


def unfenced(_: Connection) -> None:
    """Let anybody write: for changes by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Arguments of opening a trial."""

    model: str
    version: int
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    key_header: str | None = None
    conditions: Conditions = DEFAULT_CONDITIONS
    when_undecided: Undecided = "pause"
    max_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A sample that the two versions answered differently: the answers, by prediction id and position in its body."""

    prediction: str
    index: int
    stage: int
    at: float
    live: Any
    candidate: Any
    better: str | None


class Trials:
    """The tables of trials. Every method raises StoreUnavailable. For any thread.

    Transitions raise Overtaken if the trial has made another one, and what `fence` raises.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._registry = Registry(store)
        self._turn = threading.Lock()
        self._last = -1  # id of the last event that was read
        self._open: Sequence[Trial] = ()

    def open(self) -> Sequence[Trial]:
        """Return all open trials, the oldest first. Reads one number unless a trial has changed since the last call."""
        with self._turn:
            with self._store.read() as connection:
                last = connection.scalar(select(func.max(trial_events.c.id))) or 0
                if last != self._last:
                    self._open, self._last = all_open(connection), last
            return self._open

    def get(self, trial_id: str) -> Trial:
        """Return one trial. Raises NotFound."""
        with self._store.read() as connection:
            return required(connection, trial_id)

    def has_ended(self, trial_id: str) -> bool:
        """Return whether a trial has ended, and no event of it follows. Raises NotFound."""
        return not self.get(trial_id).is_open

    def of(self, model: str) -> Trial | None:
        """Return the open trial of a model, else its last one; None if it has had none."""
        query = select(trials).where(trials.c.model == model)
        # By its events, whose ids rise: by times, a trial from before the clock was set back would be the last one.
        latest = select(func.max(trial_events.c.id)).where(trial_events.c.trial == trials.c.id).scalar_subquery()
        last = func.coalesce(latest, 0).desc(), trials.c.opened_at.desc()
        query = query.order_by(trials.c.finished_at.is_(None).desc(), *last).limit(1)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else trial_of(row)

    def events(self, trial_id: str, after: int = 0) -> Sequence[TrialEvent]:
        """Return the events of a trial after event `after`, oldest first."""
        return self._events(trial_events.c.trial == trial_id, trial_events.c.id > after)

    def states(self, model: str, until: float | None = None) -> Sequence[TrialEvent]:
        """Return the transitions of all trials of a model, oldest first; with `until`, those until then."""
        chosen = [trial_events.c.model == model, trial_events.c.kind == "state"]
        return self._events(*chosen, *([] if until is None else [trial_events.c.at <= until]))

    def last_event(self) -> int:
        """Return the id of the last event of all trials; 0 if there is none."""
        with self._store.read() as connection:
            return connection.scalar(select(func.max(trial_events.c.id))) or 0

    def new_events(self, after: int, limit: int) -> Sequence[TrialEvent]:
        """Return events of all trials after event `after`, oldest first."""
        return self._events(trial_events.c.id > after, limit=limit)

    def _events(self, *chosen: Any, limit: int | None = None) -> Sequence[TrialEvent]:
        query = select(trial_events).where(*chosen).order_by(trial_events.c.id).limit(limit)
        with self._store.read() as connection:
            return [TrialEvent(**row) for row in connection.execute(query).mappings()]

    def differences(self, trial_id: str, limit: int) -> Sequence[Difference]:
        """Return the first samples that the two versions answered differently."""
        query = select(trial_differences).where(trial_differences.c.trial == trial_id)
        query = query.order_by(trial_differences.c.at, trial_differences.c.prediction, trial_differences.c.index)
        with self._store.read() as connection:
            rows = connection.execute(query.limit(limit)).mappings()
            return [Difference(**{name: row[name] for name in Difference.__slots__}) for row in rows]

    def begin(self, order: Opening, *, by: str, now: float) -> Trial:
        """Open a trial in a separate transaction; see `begin_in`."""
        with self._store.write() as connection:
            return self.begin_in(connection, order, by=by, job=None, now=now)

    def begin_in(self, connection: Connection, order: Opening, *, by: str, job: str | None, now: float) -> Trial:
        """Open a trial in the caller's transaction.

        Raises NotFound if there is no such version or it is pruned, and Conflict if it is live, nothing is live, or a
        trial of the model is open.
        """
        self._registry.required(connection, order.model, order.version)
        live = self._registry.live_of(connection, order.model)
        if live is None:
            raise Conflict(f"nothing is live of {order.model} to compare with: promote the version")
        if live == order.version:
            raise Conflict(f"version {live} of {order.model} is live already: a trial needs another version")
        if (other := open_of(connection, order.model)) is not None:
            raise Conflict(
                f"trial {other.id} of version {other.version} of {order.model} is open: wait for its end, or abort it"
            )
        trial = Trial(
            id=uuid4().hex,
            model=order.model,
            version=order.version,
            live=live,
            stages=order.stages,
            stage=0,
            state=order.stages[0].state,
            attempt=1,
            key_header=order.key_header,
            conditions=order.conditions,
            when_undecided=order.when_undecided,
            max_s=order.max_s,
            opened_at=now,
            stage_since=now,
            elapsed_s=0.0,
            decide_by=None if order.max_s is None else now + order.max_s,
            finished_at=None,
            by=by,
            job=job,
            reason="opened",
        )
        connection.execute(trials.insert().values(**row_of(trial)))
        tell(connection, trial, now, by=by)
        return trial

    def advance(self, trial: Trial, *, by: str, reason: str, now: float, fence: Fence = unfenced) -> Trial:
        """Go to the next stage of a trial that is not in its last one; a paused one goes on there, as with `resume`."""
        following = trial.stages[trial.stage + 1]
        values: dict[str, Any] = {
            "state": following.state,
            "stage": trial.stage + 1,
            "stage_since": now,
            "elapsed_s": 0.0,
        }
        if trial.state == "paused":
            values["decide_by"] = _deadline(trial, now)
        return self._change(trial, fence, by=by, reason=reason, now=now, **values)

    def pause(self, trial: Trial, *, by: str, reason: str, now: float, fence: Fence = unfenced) -> Trial:
        """Stop the stage's clock. A shadow stops; a canary keeps its share."""
        return self._change(trial, fence, by=by, reason=reason, now=now, state="paused", elapsed_s=trial.spent_s(now))

    def resume(self, trial: Trial, *, by: str, reason: str, now: float) -> Trial:
        """Go on with the stage of a paused trial; its longest duration begins again, and so does the time of a stage
        that was over: it was undecided, and would be so again at once.
        """
        elapsed_s = trial.elapsed_s if trial.elapsed_s < trial.now.for_s else 0.0
        values = {
            "state": trial.now.state,
            "stage_since": now,
            "elapsed_s": elapsed_s,
            "decide_by": _deadline(trial, now),
        }
        return self._change(trial, unfenced, by=by, reason=reason, now=now, **values)

    def roll_back(self, trial: Trial, *, by: str, reason: str, now: float, fence: Fence = unfenced) -> Trial:
        """End a trial because of its candidate. Live stays live."""
        return self._change(trial, fence, by=by, reason=reason, now=now, state="rolled_back")

    def abort(self, trial: Trial, *, by: str, reason: str, now: float) -> Trial:
        """End a trial by hand. Live stays live."""
        return self._change(trial, unfenced, by=by, reason=reason, now=now, state="aborted")

    def promote(self, trial: Trial, *, by: str, reason: str, now: float, fence: Fence = unfenced) -> int | None:
        """End a trial and make its candidate live, in one transaction. Returns the previous live version.

        Raises NotFound if the candidate is pruned.
        """
        with self._store.write() as connection:
            fence(connection)
            change(connection, trial, now=now, by=by, reason=reason, state="promoted")
            return self._registry.promote(
                connection, trial.model, trial.version, by=f"trial {trial.id}", reason=reason, now=now
            )

    def note_fault(self, trial: Trial, kind: FaultKind, detail: str, *, now: float) -> None:
        """Record why the candidate must be rolled back at once; the same kind in a stage is recorded once."""
        with self._store.write() as connection:
            current = required(connection, trial.id)
            query = select(trial_events.c.data).where(trial_events.c.trial == trial.id, trial_events.c.kind == "fault")
            known = [(data["stage"], data["kind"]) for data in connection.scalars(query)]
            if current.is_open and (trial.stage, kind) not in known:
                data = {"stage": trial.stage, "kind": kind, "detail": detail}
                add_event(connection, current, now, "fault", data)

    def note_truth(self, connection: Connection, prediction: str, index: int, *, live: bool, candidate: bool) -> bool:
        """Record, in the caller's transaction, which versions answered a sample rightly. Returns whether it is one that
        a trial has noted as answered differently.
        """
        better = "neither" if live == candidate else "live" if live else "candidate"
        at = trial_differences.c.prediction == prediction, trial_differences.c.index == index
        return connection.execute(update(trial_differences).where(*at).values(better=better)).rowcount > 0

    def _change(self, trial: Trial, fence: Fence, *, by: str, reason: str, now: float, **values: Any) -> Trial:
        with self._store.write() as connection:
            fence(connection)
            return change(connection, trial, now=now, by=by, reason=reason, **values)


def _deadline(trial: Trial, now: float) -> float | None:
    """Return when a trial that goes on now has lasted its longest time."""
    return None if trial.max_s is None else now + trial.max_s
