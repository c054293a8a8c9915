"""A run measures the reference of drift; an upload gets one when it is evaluated."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.catalog import specs
from models.checkpoints.record import Record
from models.drift.reference import DriftReference
from models.messages import Evaluate, Evaluated, Message
from tests.fakes import LINE, Line
from tests.signatures import TABLE
from training.drift import measured_drift
from training.executor import Executor
from training.recipe import Dataset, Split, recipes
from training.rows import prepared
from training.run import run

NORMAL = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))


def dataset(samples: Any) -> Dataset:
    split = Split(samples, torch.zeros(len(samples)))
    return Dataset(name="d", train=split, validation=split, test=split)


def titles(drift: Mapping[str, Any]) -> list[str]:
    return [one.title for one in DriftReference.of_json(drift).distributions]


def test_a_record_has_the_distributions_of_its_data(tmp_path: Path) -> None:
    recipe = recipes()["mnist"]
    config = recipe.config(dataset="digits", limit=200)
    record = run("mnist", recipe, config, data=tmp_path, folder=tmp_path, report=lambda _: None, command="").record
    names = ["ink mean", "ink area", "box height", "box width", "maximum", "answers: label"]
    assert titles(record.drift) == names
    found = DriftReference.of_json(record.drift)
    assert [sum(one.counts) for one in found.distributions] == [200] * 5 + [270]
    assert found.confidence is not None


def test_rows_of_named_inputs_are_measured_as_they_are_encoded() -> None:
    rows = [{"age": place % 120, "sex": "male", "fare": None if place % 2 else 7.5} for place in range(100)]
    ready = prepared(TABLE, dataset(rows), {})
    drift = measured_drift("table", TABLE, TABLE.network().eval(), ready, {})
    age, sex, fare, _ = DriftReference.of_json(drift).distributions
    assert titles(drift) == ["age", "sex", "fare", "answers: value"]
    assert (sex.labels, sex.counts) == (("female", "male"), (0, 100, 0))
    assert (age.counts[-1], fare.counts[-1]) == (0, 50)


def test_of_many_samples_some_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.drift.MOST", 150)
    drift = measured_drift("line", LINE, Line().eval(), dataset(NORMAL), {})
    assert [sum(one.counts) for one in DriftReference.of_json(drift).distributions] == [150, 150]
    rows = prepared(TABLE, dataset([{"age": 1, "sex": "male", "fare": 2.0}] * 200), {})
    drift = measured_drift("table", TABLE, TABLE.network().eval(), rows, {})
    assert [sum(one.counts) for one in DriftReference.of_json(drift).distributions] == [150] * 4


@pytest.mark.parametrize("period", [2, 3, 5, 100])
def test_samples_are_drawn_from_all_groups_that_take_turns(monkeypatch: pytest.MonkeyPatch, period: int) -> None:
    """Pictures of MNIST alternate between two groups of writers."""
    monkeypatch.setattr("training.drift.MOST", 3000)
    group = (torch.arange(3000 * period) % period == 0).float()[:, None]
    drift = measured_drift("line", LINE, Line().eval(), dataset(group), {})
    (low, high) = (count for count in DriftReference.of_json(drift).distributions[0].counts if count)
    assert abs(high / (low + high) - 1 / period) < 0.05


def test_features_that_fail_do_not_fail_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> Mapping[str, Any]:
        raise ZeroDivisionError("by hand")

    with caplog.at_level(logging.WARNING):
        spec = replace(LINE, features=broken)
        drift = measured_drift("line", spec, Line().eval(), dataset(NORMAL), {})
    assert drift == {"fault": "its reference could not be measured: ZeroDivisionError: by hand"}
    assert "no reference of drift" in caplog.text
    few = measured_drift("line", LINE, Line().eval(), dataset(NORMAL[:9]), {})
    assert "fewer than 50 samples" in few["fault"]


def test_an_evaluation_measures_the_reference_if_it_is_asked_for(tmp_path: Path) -> None:
    recipe = recipes()["regressor"]
    config = recipe.config(epochs=1)
    outcome = run("regressor", recipe, config, data=tmp_path, folder=tmp_path, report=lambda _: None, command="")
    told: list[Message] = []
    order = Evaluate(
        model="regressor",
        config=config.model_dump(mode="json"),
        data=tmp_path,
        path=outcome.path,
        record=Record(model="regressor", sha256=outcome.record.sha256, arguments=outcome.record.arguments),
    )
    executor = Executor(told.append, specs())
    for asked in (False, True):
        executor.do(replace(order, drift=asked))
    without, found = told
    assert isinstance(without, Evaluated)
    assert isinstance(found, Evaluated)
    assert without.drift == {}
    assert found.drift == outcome.record.drift
