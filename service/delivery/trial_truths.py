"""Truths of a trial: which version was right where the two answered differently, by audits and outcomes.

Corrections do not count: callers report answers of the live version, and mostly wrong ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from models.spec import ModelSpec
from service.data.feedback import Kind, truths
from service.data.said import compared, said_of
from service.delivery.trials import Trial, Trials
from service.store.database import Store
from service.store.tables import trial_differences

_COUNTED: tuple[Kind, ...] = ("audit", "outcome")


class TrialTruths:
    """Compares noted differences with feedback."""

    def __init__(self, store: Store, trials: Trials, specs: Mapping[str, ModelSpec]) -> None:
        self._store = store
        self._trials = trials
        self._specs = specs

    def note(self, trial: Trial) -> int:
        """Record the truths that are known by now of differences without one. Returns how many.

        Raises StoreUnavailable.
        """
        spec = self._specs.get(trial.model)
        if spec is None:
            return 0
        with self._store.read() as connection:
            found = _judged(connection, trial, spec)
        if found:
            with self._store.write() as connection:
                for prediction, index, live, candidate in found:
                    self._trials.note_truth(connection, prediction, index, live=live, candidate=candidate)
        return len(found)


def _judged(connection: Connection, trial: Trial, spec: ModelSpec) -> Sequence[tuple[str, int, bool, bool]]:
    """Return prediction, position, and whether live and candidate were right, or nearer than the other one."""
    table = trial_differences.c
    query = select(table.prediction, table.index.label("position"), table.live, table.candidate)
    rows = connection.execute(query.where(table.trial == trial.id, table.better.is_(None))).all()
    known = truths(connection, trial.model, sorted({row.prediction for row in rows}), _COUNTED) if rows else {}
    return [
        (
            row.prediction,
            row.position,
            *_right(spec, row.live, row.candidate, known[row.prediction, row.position].value),
        )
        for row in rows
        if (row.prediction, row.position) in known
    ]


def _right(spec: ModelSpec, live: Mapping[str, Any], candidate: Mapping[str, Any], truth: Any) -> tuple[bool, bool]:
    of_live, of_candidate = (compared(said_of(spec, answer), truth) for answer in (live, candidate))
    if of_live.error is not None and of_candidate.error is not None:
        return of_live.error < of_candidate.error, of_candidate.error < of_live.error
    return bool(of_live.was_right), bool(of_candidate.was_right)
