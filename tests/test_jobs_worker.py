"""A job with "promote": "trial": register, open the trial and finish are one transaction. On both databases."""

import time
from dataclasses import asdict
from typing import Any

import pytest

from models.checkpoints.record import Record
from models.messages import Evaluate, Evaluated, ExportDone, Fit, Fitted, Message, Order
from service.delivery.registry import Registry
from service.delivery.trials import DEFAULT_CONDITIONS, DEFAULT_STAGES, Trials
from service.jobs.queue import Job, Jobs
from service.store.database import Store
from tests.dataset_service import work
from tests.trials import opened, register


def fitted(order: Order[Any], mse: float | None = 1.0) -> Message:
    """Answer every order of a training job; live has an error of 1 as well."""
    if isinstance(order, Fit):
        metrics = {} if mse is None else {"validation_mse": mse}
        record = Record(model="line", sha256="b" * 64, metrics=metrics, dataset="field")
        return Fitted(record=record, metric="mse", higher_is_better=False)
    return Evaluated(metrics={"validation_mse": 1.0}, dataset="field") if isinstance(order, Evaluate) else ExportDone()


def trained(store: Store, promote: Any = "trial", mse: float | None = 1.0) -> Job:
    Jobs(store).enqueue("line", {"epochs": 1}, promote, now=time.time())
    return work(store, lambda order: fitted(order, mse))


def gate_of(job: Job) -> dict[str, Any]:
    assert job.state == "succeeded"
    assert job.gate is not None
    return dict(job.gate)


def test_a_job_opens_the_default_trial_of_its_version(store: Store) -> None:
    register(store, live=True)
    job = trained(store)
    trial = Trials(store).of("line")
    assert trial is not None
    assert (trial.version, trial.live, trial.stages, trial.conditions) == (2, 1, DEFAULT_STAGES, DEFAULT_CONDITIONS)
    assert (trial.by, trial.job, trial.state) == (job.id, job.id, "shadow")
    gate = gate_of(job)
    assert (job.version, gate["decision"], gate["trial"]) == (2, "kept", trial.id)
    assert gate["reason"] == f"mse 1 is not better than 1 of live; trial {trial.id} decides"
    assert Registry(store).live_version("line") == 1


def test_a_better_figure_promotes_nothing_before_the_trial(store: Store) -> None:
    register(store, live=True)
    assert gate_of(trained(store, mse=0.5))["decision"] == "kept"
    assert Registry(store).live_version("line") == 1


def test_the_first_version_goes_live_without_a_trial(store: Store) -> None:
    gate = gate_of(trained(store))
    assert (gate["decision"], gate["trial"], gate["reason"]) == ("promoted", None, "nothing was live")
    assert Trials(store).of("line") is None


def test_beside_an_open_trial_the_version_is_kept_and_the_gate_says_so(store: Store) -> None:
    other = opened(store)
    gate = gate_of(trained(store))
    assert (gate["decision"], gate["trial"]) == ("kept", None)
    assert f"no trial was opened: trial {other.id} of version 2 of line is open" in gate["reason"]
    assert [trial.id for trial in Trials(store).open()] == [other.id]


def test_a_version_without_a_figure_is_not_tried(store: Store) -> None:
    register(store, live=True)
    gate = gate_of(trained(store, mse=None))
    assert (gate["decision"], gate["trial"]) == ("kept", None)
    assert Trials(store).of("line") is None


def test_other_policies_open_no_trial_and_a_promotion_aborts_an_open_one(store: Store) -> None:
    trial = opened(store)
    assert gate_of(trained(store, "never"))["trial"] is None
    assert Trials(store).get(trial.id).is_open
    job = trained(store, "always")
    assert (Trials(store).get(trial.id).state, Registry(store).live_version("line")) == ("aborted", 4)
    assert Trials(store).events(trial.id)[-1].data["by"] == job.id


@pytest.mark.parametrize("place", ["begin_in", "finish"])
def test_a_crash_between_leaves_nothing_half(store: Store, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    register(store, live=True)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    Jobs(store).enqueue("line", {"epochs": 1}, "trial", now=time.time())
    with monkeypatch.context() as patched:
        patched.setattr(Trials if place == "begin_in" else Jobs, place, killed)
        with pytest.raises(KeyboardInterrupt):
            work(store, fitted)
    (job,) = Jobs(store).page(limit=9)
    assert (job.state, job.version, job.gate) == ("running", None, None)
    assert [one.version for one in Registry(store).versions("line")] == [1]
    assert Trials(store).open() == []
    assert asdict(job)["promote"] == "trial"
