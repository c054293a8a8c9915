"""Rows of trials: how one is read, and the transitions that every caller shares.

Every transition says `WHERE id = ? AND state = ? AND stage = ? AND attempt = ?`, and adds an event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from sqlalchemy import ColumnElement, Connection, and_, select, update

from models.errors import shown
from service.errors import NotFound
from service.store.feed import append
from service.store.tables import trial_events, trials

State = Literal["shadow", "canary", "paused", "promoted", "rolled_back", "aborted"]
Undecided = Literal["pause", "roll_back"]
FaultKind = Literal["load", "not finite", "memory"]
Arm = Literal["live", "candidate", "shadow"]
FINAL: frozenset[State] = frozenset({"promoted", "rolled_back", "aborted"})
_LONGEST_REASON = 2000


class Overtaken(Exception):
    """The trial has made another transition meanwhile, or this process does not lead any more: write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: a shadow, which computes this share of the live requests again, or a canary, which answers its share
    of the keys. It lasts `for_s` seconds and `samples` samples of the candidate, whatever takes longer.
    """

    shadow: float = 0.0  # 0 to 1
    share: float = 0.0  # 0 to 0.5
    for_s: float
    samples: int

    @property
    def state(self) -> Literal["shadow", "canary"]:
        """Return the state of a trial in this stage."""
        return "shadow" if self.shadow else "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Roll back if the candidate errs more than live, with at most this probability of doing so wrongly."""

    alpha: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The share of shadowed samples that both versions answer alike; numbers that differ by at most `tolerance` are."""

    at_least: float
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """95% of the candidate's requests take at most this many milliseconds."""

    p95_at_most_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Roll back if live is right more often where the two differ and the truth is known; `alpha` as for Errors."""

    alpha: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Conditions for a candidate; None: not asked for."""

    errors: Errors | None = None
    agreement: Agreement | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return the conditions of a row."""
        kinds = {"errors": Errors, "agreement": Agreement, "latency": Latency, "accuracy": Accuracy}
        return cls(**{name: kinds[name](**bounds) for name, bounds in stored.items() if bounds is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One row. Times are seconds since 1970. `live` was live at its opening; `version` is the candidate."""

    id: str
    model: str
    version: int
    live: int
    stages: tuple[Stage, ...]
    stage: int  # index
    state: State
    attempt: int  # rises with each transition
    key_header: str | None
    conditions: Conditions
    when_undecided: Undecided
    max_s: float | None
    opened_at: float
    stage_since: float
    elapsed_s: float  # in this stage until `stage_since`
    decide_by: float | None  # opening or last resume, and `max_s`
    finished_at: float | None
    by: str
    job: str | None
    reason: str

    @property
    def is_open(self) -> bool:
        """Whether it goes on, or is paused."""
        return self.state not in FINAL

    @property
    def now(self) -> Stage:
        """The current stage, or the last one."""
        return self.stages[self.stage]

    @property
    def share(self) -> float:
        """The share of keys that the candidate answers. A paused canary keeps its share."""
        return self.now.share if self.is_open else 0.0

    @property
    def shadow(self) -> float:
        """The share of live requests that the candidate computes again; none while paused."""
        return self.now.shadow if self.state == "shadow" else 0.0

    def spent_s(self, now: float) -> float:
        """Return the seconds that the stage has lasted, without pauses."""
        return self.elapsed_s if self.state == "paused" else self.elapsed_s + max(0.0, now - self.stage_since)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEvent:
    """One event of a trial. `id` rises over all trials."""

    id: int
    trial: str
    model: str
    attempt: int
    at: float
    kind: Literal["state", "fault"]
    data: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The trial's id."""
        return self.trial

    @property
    def is_last(self) -> bool:
        """Whether no event of the trial follows."""
        return self.kind == "state" and self.data["state"] in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counters of one arm. `latency` counts the requests by the buckets of metrics.SECONDS, and those above."""

    requests: int = 0
    samples: int = 0
    errors: int = 0
    not_finite: int = 0
    dropped: int = 0
    agreed: int = 0
    differed: int = 0
    latency: tuple[int, ...] = ()

    def __add__(self, other: "Counts") -> "Counts":
        """Return the counters of both."""
        size = max(len(self.latency), len(other.latency))
        pairs = zip(_filled(self.latency, size), _filled(other.latency, size), strict=True)
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return Counts(**sums, latency=tuple(a + b for a, b in pairs))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return the counters of a row."""
        return cls(**{**stored, "latency": tuple(stored.get("latency", ()))})


_SUMMED = [field.name for field in fields(Counts) if field.name != "latency"]


def _filled(counts: tuple[int, ...], size: int) -> tuple[int, ...]:
    return counts + (0,) * (size - len(counts))


def trial_of(row: Mapping[Any, Any]) -> Trial:
    """Return a row of the table as a Trial."""
    stages = tuple(Stage(**stage) for stage in row["stages"])
    values = {field.name: row[field.name] for field in fields(Trial)}
    return Trial(**{**values, "stages": stages, "conditions": Conditions.of(row["conditions"])})


def row_of(trial: Trial) -> dict[str, Any]:
    """Return a Trial as a row of the table."""
    return {**asdict(trial), "stages": [asdict(stage) for stage in trial.stages]}


def required(connection: Connection, trial_id: str) -> Trial:
    """Return a trial. Raises NotFound."""
    found = [] if "\0" in trial_id else _all(connection, trials.c.id == trial_id)  # PostgreSQL rejects NUL in text
    if not found:
        raise NotFound(f"unknown trial {shown(trial_id)!r}; GET /models/MODEL/trial shows the last one of a model")
    return found[0]


def open_of(connection: Connection, model: str) -> Trial | None:
    """Return the open trial of a model in this transaction."""
    found = _all(connection, and_(trials.c.model == model, trials.c.finished_at.is_(None)))
    return found[0] if found else None


def all_open(connection: Connection) -> Sequence[Trial]:
    """Return the open trials, the oldest first."""
    return _all(connection, trials.c.finished_at.is_(None))


def _all(connection: Connection, condition: ColumnElement[bool]) -> Sequence[Trial]:
    query = select(trials).where(condition).order_by(trials.c.opened_at, trials.c.id)
    return [trial_of(row) for row in connection.execute(query).mappings()]


def change(connection: Connection, trial: Trial, *, now: float, by: str, reason: str, **values: Any) -> Trial:
    """Make a transition of a trial, if state, stage and attempt are those that the caller knows. Raises Overtaken."""
    known = and_(
        trials.c.id == trial.id,
        trials.c.state == trial.state,
        trials.c.stage == trial.stage,
        trials.c.attempt == trial.attempt,
    )
    values = {**values, "attempt": trial.attempt + 1, "reason": reason[:_LONGEST_REASON]}
    if values.get("state") in FINAL:
        values["finished_at"] = now
    if connection.execute(update(trials).where(known).values(**values)).rowcount != 1:
        raise Overtaken(trial.id)
    changed = required(connection, trial.id)
    tell(connection, changed, now, by=by)
    return changed


def tell(connection: Connection, trial: Trial, now: float, *, by: str) -> None:
    """Add an event about a trial's state."""
    data = {
        "state": trial.state,
        "stage": trial.stage,
        "version": trial.version,
        "by": by,
        "reason": trial.reason,
    }
    add_event(connection, trial, now, "state", data)


def add_event(
    connection: Connection, trial: Trial, now: float, kind: Literal["state", "fault"], data: Mapping[str, Any]
) -> None:
    """Add an event. Its id is the number of the change that followers look for."""
    about = {"trial": trial.id, "model": trial.model, "attempt": trial.attempt, "at": now}
    connection.execute(trial_events.insert().values(**about, kind=kind, data=dict(data)))
    named = f"trial.{trial.state}" if kind == "state" else f"trial.{kind}"
    append(connection, named, trial.model, now, {"trial": trial.id, **data})


def abort_open(connection: Connection, model: str, *, by: str, reason: str, now: float) -> None:
    """Abort the open trial of a model, if there is one: its live version changes in this transaction."""
    if (trial := open_of(connection, model)) is not None:
        change(connection, trial, now=now, by=by, reason=reason, state="aborted")
