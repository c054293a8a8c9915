"""Metrics of the default runs on held-out data, for several seeds."""

from pathlib import Path
from typing import Any

import pytest

from training.recipe import recipes
from training.run import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def figures(name: str, folder: Path, data: Path = Path("nowhere"), **values: Any) -> dict[str, float]:
    recipe = recipes()[name]
    config = recipe.config(**values)
    return dict(run(name, recipe, config, data=data, folder=folder, report=lambda _: None, command="").record.metrics)


@pytest.mark.parametrize("seed", range(8))
def test_the_regressor_comes_close_to_the_noise(seed: int, tmp_path: Path) -> None:
    assert figures("regressor", tmp_path, seed=seed)["mse"] <= 0.005


@pytest.mark.parametrize("seed", range(8))
def test_the_classifier_comes_close_to_the_best_rule_there_is(seed: int, tmp_path: Path) -> None:
    assert figures("classifier", tmp_path, seed=seed)["accuracy"] >= 0.99


def test_the_built_in_digits_are_learnt_in_a_few_seconds(tmp_path: Path) -> None:
    assert figures("mnist", tmp_path, dataset="digits", epochs=10)["accuracy"] >= 0.95


def test_one_epoch_of_mnist_reads_98_of_100_test_images(mnist_folder: Path, tmp_path: Path) -> None:
    assert figures("mnist", tmp_path, data=mnist_folder)["accuracy"] >= 0.980
