"""Trials for tests: a trial without a database, counts of its arms, and rows as web processes write them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Table, insert, select

from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.delivery.trials import DEFAULT_CONDITIONS, Arm, Counts, Opening, Stage, Trial, Trials
from service.store.database import Store
from service.store.tables import trial_counts, trial_differences, trial_keys

SHADOW = Stage(shadow=1.0, for_s=600, samples=500)
CANARY = Stage(share=0.1, for_s=600, samples=200)


def trial_of(*stages: Stage, **values: Any) -> Trial:
    """A trial that was opened at 0 s, in its first stage."""
    stages = stages or (SHADOW, CANARY)
    first: dict[str, Any] = {
        "id": "t1", "model": "line", "version": 2, "live": 1, "stages": stages, "stage": 0, "state": stages[0].state,
        "attempt": 1, "key_header": None, "conditions": DEFAULT_CONDITIONS, "when_undecided": "pause", "max_s": None,
        "opened_at": 0.0, "stage_since": 0.0, "elapsed_s": 0.0, "decide_by": None, "finished_at": None, "by": "anyone",
        "job": None, "reason": "opened",
    }  # fmt: skip
    return Trial(**{**first, **values})


def register(store: Store, model: str = "line", *, live: bool = False) -> int:
    """Register a version without a file, and promote it if it is to be live."""
    registry = Registry(store)
    path = store.folder / "checkpoints" / model / "none.pt"
    with store.write() as connection:
        number = registry.add(connection, model, path, Record(model=model, sha256="0" * 64), job=None, now=1.0)
        if live:
            registry.promote(connection, model, number, by="test", reason="", now=1.0)
    return number


def opened(store: Store, *stages: Stage, now: float = 0.0, **order: Any) -> Trial:
    """Open a trial of a new version beside a live one."""
    if Registry(store).live_version("line") is None:
        register(store, live=True)
    values = {"stages": stages or (SHADOW, CANARY), **order}
    return Trials(store).begin(Opening(model="line", version=register(store), **values), by="anyone", now=now)


def count(trial: Trial, store: Store, arm: Arm, counts: Counts, *, minute: int = 0, process: str = "p") -> None:
    """Add the counters of a minute in the current stage."""
    row = {"trial": trial.id, "stage": trial.stage, "minute": minute, "process": process, "arm": arm}
    _insert(store, trial_counts, [{**row, "counts": asdict(counts)}])


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteCounts:
    """Counters of one minute in one web process."""

    stage: int
    minute: int
    process: str
    arm: Arm
    counts: Counts


def written_counts(store: Store, trial: str) -> Sequence[MinuteCounts]:
    """Read the counters of a trial."""
    query = select(trial_counts).where(trial_counts.c.trial == trial)
    with store.read() as connection:
        rows = connection.execute(query).mappings().all()
    names = ("stage", "minute", "process", "arm")
    return [MinuteCounts(**{name: row[name] for name in names}, counts=Counts.of(row["counts"])) for row in rows]


def err(trial: Trial, store: Store, arm: Arm, keys: Iterable[int], stage: int | None = None) -> None:
    """Note keys that had an error."""
    row = {"trial": trial.id, "stage": trial.stage if stage is None else stage, "arm": arm}
    _insert(store, trial_keys, [{**row, "key": key} for key in keys])


def differ(trial: Trial, store: Store, predictions: Iterable[str]) -> None:
    """Note samples that were answered differently."""
    row = {
        "trial": trial.id,
        "stage": trial.stage,
        "index": 0,
        "at": 1.0,
        "live": {"value": 1},
        "candidate": {"value": 2},
    }
    _insert(store, trial_differences, [{**row, "prediction": one} for one in predictions])


def _insert(store: Store, table: Table, rows: list[dict[str, Any]]) -> None:
    with store.write() as connection:
        connection.execute(insert(table), rows)
