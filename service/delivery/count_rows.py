"""Rows of what web processes count for trials: written by the process that counted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from service.data.erasures import Erasures
from service.delivery.trials import Arm, Counts, Difference
from service.store.dialects import insert_of
from service.store.tables import trial_counts, trial_differences, trial_keys, trials

MOST_KEYS = 20_000  # with errors, of one stage
MOST_DIFFERENCES = 1_000  # of one trial


class Place(NamedTuple):
    """The arm of a trial, in one stage."""

    trial: str
    stage: int
    arm: Arm


class Key(NamedTuple):
    """A key that had an error, by 63 bits of its hash."""

    trial: str
    stage: int
    key: int
    arm: Arm


@dataclass(frozen=True, slots=True)
class Minute:
    """Counts of one arm in one minute, of one web process."""

    process: str
    place: Place
    minute: int
    counts: Counts


def write_counts(connection: Connection, minutes: Sequence[Minute]) -> None:
    """Write the counts of minutes, in place of earlier ones."""
    if minutes:
        rows = [
            {**one.place._asdict(), "minute": one.minute, "process": one.process, "counts": asdict(one.counts)}
            for one in minutes
        ]
        connection.execute(_statements(connection.dialect.name).counts, rows)


def write_keys(connection: Connection, keys: Sequence[Key]) -> None:
    """Write keys that are not there yet, unless the stage has enough.

    In ascending order: of two processes that write the same keys in different orders, PostgreSQL ends one (deadlock).
    """
    for place in sorted({(key.trial, key.stage) for key in keys}):
        of_stage = trial_keys.c.trial == place[0], trial_keys.c.stage == place[1]
        room = MOST_KEYS - (connection.scalar(select(func.count()).select_from(trial_keys).where(*of_stage)) or 0)
        if found := sorted([key for key in keys if key[:2] == place][: max(0, room)]):
            connection.execute(_statements(connection.dialect.name).keys, [key._asdict() for key in found])


def write_differences(connection: Connection, differences: Sequence[tuple[str, Difference]]) -> None:
    """Write differences by their trials, unless these have enough, but for those of erased predictions."""
    for trial in {trial for trial, _ in differences}:
        counted = select(func.count()).select_from(trial_differences).where(trial_differences.c.trial == trial)
        room = MOST_DIFFERENCES - (connection.scalar(counted) or 0)
        model = connection.scalar(select(trials.c.model).where(trials.c.id == trial))
        erasures = Erasures.of(connection, model or "")
        mine = [one for of, one in differences if of == trial and not erasures.has(one.prediction)]
        found = [{**asdict(one), "trial": trial} for one in mine]
        if found := found[: max(0, room)]:
            connection.execute(_statements(connection.dialect.name).differences, found)


class _Statements(NamedTuple):
    counts: Any
    keys: Any
    differences: Any


@cache
def _statements(dialect: str) -> _Statements:
    insert = insert_of(dialect)
    counts = insert(trial_counts)
    counts = counts.on_conflict_do_update(
        index_elements=["trial", "stage", "minute", "process", "arm"], set_={"counts": counts.excluded.counts}
    )
    return _Statements(
        counts=counts,
        keys=insert(trial_keys).on_conflict_do_nothing(),
        differences=insert(trial_differences).on_conflict_do_nothing(),
    )
