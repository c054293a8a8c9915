"""A run measures the statistics of its training split, if the samples are the entries in another shape."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.catalog import specs
from models.checkpoints import state_dict
from models.reference import feature_ranges
from models.spec import Array
from tests.fakes import LINE
from training import data
from training.recipe import recipes
from training.reference import measure
from training.run import run

CHECKED = replace(LINE, check=feature_ranges())
SAMPLES = torch.linspace(0, 4, 50)[:, None]


def test_a_record_has_the_reference_of_its_training_split(tmp_path: Path) -> None:
    recipe = recipes()["mnist"]
    config = recipe.config(dataset="digits", limit=100)
    outcome = run("mnist", recipe, config, data=tmp_path, folder=tmp_path, file="fit.pt", report=print, command="")
    assert set(outcome.record.reference) == {
        "brightest",
        "border",
        "paper",
        "ink",
        "edges",
        "edges per pixel",
        "parts",
    }
    brightest = outcome.dataset.train.samples.amax(dim=(1, 2, 3))
    assert outcome.record.reference["brightest"] == [int(brightest.min()), int(brightest.max())]
    assert state_dict.load("mnist", specs()["mnist"], tmp_path / "fit.pt")[1] == outcome.record


def test_a_model_without_statistics_has_no_reference() -> None:
    assert measure("line", LINE, SAMPLES) == {}


def test_samples_that_are_entries_are_measured() -> None:
    assert measure("line", CHECKED, SAMPLES) == {"features": [[0.0], [4.0]]}


@pytest.mark.parametrize(
    "preprocess",
    [lambda entries: entries / 255, lambda entries: entries - 1, lambda entries: np.repeat(entries, 2, axis=1)],
    ids=["scaled", "moved", "widened"],
)
def test_samples_that_are_no_entries_are_not_measured(
    preprocess: Callable[[Array], Array], caplog: pytest.LogCaptureFixture
) -> None:
    spec = replace(CHECKED, preprocess=preprocess)
    samples = torch.as_tensor(preprocess(SAMPLES.numpy()))
    with caplog.at_level(logging.WARNING):
        assert measure("line", spec, samples) == {}
    assert "the spec's bounds apply" in caplog.text


def test_digits_lose_their_channel() -> None:
    digits = data.digits().train.samples
    assert digits.shape[1:] == (1, 28, 28)
    found = measure("mnist", specs()["mnist"], digits)
    assert found["brightest"] == [int(digits.amax(dim=(1, 2, 3)).min()), 255]
