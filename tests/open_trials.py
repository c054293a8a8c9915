"""Trials in the tables, opened and moved without the API and the leader."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from service.delivery.trial_rows import change, required, row_of, tell
from service.delivery.trials import Conditions, Stage, Trial
from service.store.database import Store
from service.store.tables import trials as table
from tests import trials


def stage(*, shadow: float = 0.0, share: float = 0.0) -> Stage:
    """A stage that nothing ends."""
    return Stage(shadow=shadow, share=share, for_s=3600, samples=1_000_000)


def trial_of(stages: Sequence[Stage], **values: Any) -> Trial:
    """A trial that is opened now."""
    now = time.time()
    ours = {"id": uuid4().hex, "conditions": Conditions(), "opened_at": now, "stage_since": now}
    return trials.trial_of(*stages, **{**ours, **values})


def opened(store: Store, trial: Trial) -> Trial:
    """Open it."""
    with store.write() as connection:
        connection.execute(table.insert().values(row_of(trial)))
        tell(connection, trial, trial.opened_at, by="test")
    return trial


def moved(store: Store, trial: Trial, **values: Any) -> Trial:
    """Make a transition of a trial."""
    with store.write() as connection:
        current = required(connection, trial.id)
        return change(connection, current, now=time.time(), by="test", reason="test", **values)
