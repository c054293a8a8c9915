"""Tally of a trial: what all web processes have counted, and the keys, truths and faults that they have noted."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, func, select

from service.delivery.trial_rows import Arm, Counts, Trial
from service.store.database import Store
from service.store.tables import trial_counts, trial_differences, trial_events, trial_keys

_WHOLE_S = 60.0  # all minutes are read again after this long
_OPEN_MINUTES = 2  # before the newest one: counters that may still grow
_MOST_TRIALS = 64  # that are remembered
Minute = tuple[int, int, Arm]  # stage, minute since 1970, arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys that had an error in one arm only: the candidate's (also in a shadow), and live's. Of a canary, only keys
    that had none in an earlier canary: a key stays with the candidate when its share grows.
    """

    candidate: int = 0
    live: int = 0


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All evidence that a trial is decided by."""

    minutes: Mapping[Minute, Counts] = field(default_factory=dict)
    keys: Mapping[int, Keys] = field(default_factory=dict)  # by stage
    differing: int = 0  # samples noted as answered differently
    better: Mapping[str, int] = field(
        default_factory=dict
    )  # of those with a truth: live, candidate or neither was right
    faults: Sequence[str] = ()

    def total(self, stage: int, arm: Arm) -> Counts:
        """Return the counters of an arm in a stage."""
        return self._totals.get((stage, arm), Counts())

    def of_minutes(self, stage: int, arm: Arm) -> Sequence[Counts]:
        """Return the counters of an arm in each minute of a stage."""
        return [counts for (at, _, of), counts in self.minutes.items() if (at, of) == (stage, arm)]

    @cached_property
    def _totals(self) -> Mapping[tuple[int, Arm], Counts]:
        totals: dict[tuple[int, Arm], Counts] = {}
        for (stage, _, arm), counts in self.minutes.items():
            totals[stage, arm] = totals.get((stage, arm), Counts()) + counts
        return totals


@dataclass(slots=True)
class _Known:
    """Minutes of a trial that have been read."""

    minutes: dict[Minute, Counts]
    whole_at: float


class Tallies:
    """Reads tallies. Minutes that are over are not read again but once a minute. For any thread."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._turn = threading.Lock()
        self._known: dict[str, _Known] = {}

    def of(self, trial: Trial) -> Tally:
        """Return the tally of a trial as of now. Raises StoreUnavailable."""
        with self._turn, self._store.read() as connection:
            return Tally(
                minutes=dict(self._minutes(connection, trial.id)),
                keys=_keys(connection, trial),
                differing=_differing(connection, trial.id),
                better=_better(connection, trial.id),
                faults=_faults(connection, trial.id),
            )

    def _minutes(self, connection: Connection, trial: str) -> Mapping[Minute, Counts]:
        known = self._known.get(trial)
        if known is None or self._monotonic() - known.whole_at >= _WHOLE_S:
            while len(self._known) >= _MOST_TRIALS:
                del self._known[next(iter(self._known))]
            known = self._known[trial] = _Known(_read(connection, trial, 0), self._monotonic())
        else:
            newest = max((minute for _, minute, _ in known.minutes), default=0)
            known.minutes.update(_read(connection, trial, newest - _OPEN_MINUTES))
        return known.minutes


def _read(connection: Connection, trial: str, since: int) -> dict[Minute, Counts]:
    """Return the counters from a minute on, all web processes together."""
    query = select(trial_counts).where(trial_counts.c.trial == trial, trial_counts.c.minute >= since)
    found: dict[Minute, Counts] = {}
    for row in connection.execute(query):
        place = row.stage, row.minute, row.arm
        found[place] = found.get(place, Counts()) + Counts.of(row.counts)
    return found


def _keys(connection: Connection, trial: Trial) -> Mapping[int, Keys]:
    canaries = [number for number, stage in enumerate(trial.stages) if not stage.shadow]
    own, stage, key = trial_keys.c.trial == trial.id, trial_keys.c.stage, trial_keys.c.key
    arm = func.min(trial_keys.c.arm).label("arm")
    once = select(stage, key, arm).where(own).group_by(stage, key).having(func.count() == 1).subquery()
    first = select(key, func.min(stage).label("stage")).where(own, stage.in_(canaries)).group_by(key).subquery()
    how_many = func.count().label("how_many")
    of_shadows = select(once.c.stage, once.c.arm, how_many).where(once.c.stage.not_in(canaries))
    same = (first.c.key == once.c.key) & (first.c.stage == once.c.stage)
    of_canaries = select(once.c.stage, once.c.arm, how_many).join_from(once, first, same)
    found: dict[int, dict[str, int]] = {}
    for query in (of_shadows, of_canaries):
        for row in connection.execute(query.group_by(once.c.stage, once.c.arm)):
            found.setdefault(row.stage, {})["live" if row.arm == "live" else "candidate"] = row.how_many
    return {number: Keys(**counts) for number, counts in found.items()}


def _differing(connection: Connection, trial: str) -> int:
    query = select(func.count()).select_from(trial_differences).where(trial_differences.c.trial == trial)
    return connection.scalar(query) or 0


def _better(connection: Connection, trial: str) -> Mapping[str, int]:
    better = trial_differences.c.better
    query = select(better, func.count()).where(trial_differences.c.trial == trial, better.is_not(None))
    return {str(who): count for who, count in connection.execute(query.group_by(better))}


def _faults(connection: Connection, trial: str) -> Sequence[str]:
    """Return what must end a trial at once."""
    query = select(trial_events.c.data).where(trial_events.c.trial == trial, trial_events.c.kind == "fault")
    return [_in_words(data) for data in connection.scalars(query.order_by(trial_events.c.id))]


def _in_words(fault: Mapping[str, Any]) -> str:
    return f"{fault['kind']}: {fault['detail']}"
