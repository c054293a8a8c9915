"""The shipped checkpoints match their records and reach the required metrics."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.mnist import drawn_seven
from tests.fakes import ROOT
from training.metrics import outputs
from training.recipe import recipes

NAMES = list(recipes())
FLOORS = {"regressor": -0.005, "classifier": 0.99, "mnist": 0.995}  # of the metric, higher is better


def shipped(name: str) -> tuple[nn.Module, Record]:
    return state_dict.load(name, specs()[name], PRETRAINED / f"{name}.pt")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["regressor", "classifier", pytest.param("mnist", marks=pytest.mark.slow)])
def test_the_figures_on_test_data_are_the_recorded_ones(name: str, request: pytest.FixtureRequest) -> None:
    network, record = shipped(name)
    recipe = recipes()[name]
    folder: Path = request.getfixturevalue("mnist_folder") if record.dataset == "mnist" else Path("nowhere")
    dataset = recipe.load(recipe.config.model_validate(record.config), folder)
    figures = recipe.evaluate(network, dataset.test)
    validation = recipe.evaluate(network, dataset.validation)
    figures |= {f"validation_{key}": value for key, value in validation.items()}
    figures |= recipe.details(network, dataset.test) if recipe.details else {}
    assert figures == pytest.approx(dict(record.metrics), rel=1e-3, abs=1e-5)
    assert figures[recipe.metric] * (1 if recipe.higher_is_better else -1) >= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_the_recorded_figures_are_good_enough(name: str) -> None:
    _, record = shipped(name)
    recipe = recipes()[name]
    assert record.metrics[recipe.metric] * (1 if recipe.higher_is_better else -1) >= FLOORS[name]


def test_the_digits_are_answered_as_surely_as_they_are_right() -> None:
    _, record = shipped("mnist")
    assert record.metrics["calibration_error"] <= 0.005


def test_the_shipped_cnn_has_the_parameters_it_always_had() -> None:
    network, _ = shipped("mnist")
    assert sum(weights.numel() for weights in network.parameters()) == 28_938
    places = [f"layers.{place}" for place in (0, 3, 7)]
    assert list(network.state_dict()) == [f"{place}.{part}" for place in places for part in ("weight", "bias")]


@pytest.mark.parametrize("name", FLOORS)
def test_make_checkpoints_runs_the_recorded_command(name: str) -> None:
    _, record = shipped(name)
    target = (ROOT / "Makefile").read_text().replace("\\\n\t  ", "")
    command = record.command.replace("python", "$(BIN)/python", 1)
    assert f"\t{command} --output models/pretrained/{name}.pt\n" in target
    assert record.dataset
    assert record.torch.split("+")[0] == torch.__version__.split("+")[0]


def test_the_drawn_seven_is_the_example_and_is_read_as_a_seven() -> None:
    with Image.open(PRETRAINED / "seven.png") as picture:
        assert (picture.mode, picture.size) == ("L", (28, 28))
        drawn = np.asarray(picture)
    assert np.array_equal(drawn, drawn_seven())
    network, _ = shipped("mnist")
    probabilities = outputs(network, torch.tensor(drawn)[None, None]).softmax(dim=1)[0]
    assert probabilities.argmax() == 7
    assert probabilities[7] > 0.9
