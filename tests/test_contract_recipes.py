"""What every recipe keeps: each training/<name>.py with a RECIPE is tried, on its fixture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from models.contract import Check
from training.check import CHECKS
from training.flags import properties
from training.recipe import Dataset, Hyperparameters, Progress, Recipe, Report, recipes
from training.run import Outcome, run

CONTRACT = {
    *("epochs", "batch_size", "shuffle", "optimizer", "lr", "momentum", "alpha", "betas"),
    *("weight_decay", "activation", "seed"),
}
OWN = {"regressor": {"hidden"}, "classifier": {"hidden"}, "mnist": {"dataset", "augment", "limit", "num_workers"}}
_SLOW = ("the loss falls", "the same seed", "the trained network", "optimizer ", "activation ", "schedule ")
CASES = [
    pytest.param(
        name,
        check,
        id=f"{name}-{check.promise.replace(' ', '_')}",
        marks=[pytest.mark.slow] if check.promise.startswith(_SLOW) else [],
    )
    for name in recipes()
    for check in CHECKS
]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "check"), CASES)
def test_every_recipe_keeps_the_contract(name: str, check: Check[Recipe[Any]], tmp_path: Path) -> None:
    check.run(name, recipes()[name], tmp_path)


@pytest.mark.parametrize("name", OWN)
def test_the_built_in_recipes_have_the_hyperparameters_of_the_contract(name: str) -> None:
    assert properties(recipes()[name].config).keys() >= CONTRACT | OWN[name]


def quick(name: str, **values: Any) -> Hyperparameters:
    """A Config that needs no files."""
    config: type[Hyperparameters] = recipes()[name].config
    return config(**{**recipes()[name].fixture(Path("nowhere")), **values})


def attempt(name: str, config: Hyperparameters, folder: Path, report: Report = lambda _: None) -> Outcome:
    return run(name, recipes()[name], config, data=Path("nowhere"), folder=folder, report=report, command="a test")


@pytest.mark.parametrize("name", ["regressor", "classifier"])
def test_the_hidden_width_is_a_constructor_argument(name: str, tmp_path: Path) -> None:
    outcome = attempt(name, quick(name, hidden=3, epochs=1), tmp_path)
    assert outcome.record.arguments["hidden"] == 3
    assert next(outcome.network.parameters()).shape[0] == 3


def test_a_network_is_fitted_on_the_device_and_saved_from_the_cpu(tmp_path: Path) -> None:
    told: list[str] = []

    def fit(network: nn.Module, dataset: Dataset, config: Hyperparameters, report: Report) -> None:
        told.extend({str(tensor.device) for tensor in (*network.parameters(), dataset.train.samples)})
        recipes()["classifier"].fit(network, dataset, config, report)

    recipe: Recipe[Any] = replace(recipes()["classifier"], fit=fit)
    config = quick("classifier")
    options: dict[str, Any] = {"data": Path("nowhere"), "report": lambda _: None, "command": "a test"}
    outcome = run("classifier", recipe, config, folder=tmp_path, device="cpu", **options)
    assert told == ["cpu"]
    assert outcome.record.metrics["accuracy"] > 0.9


def test_mnist_is_fitted_to_the_first_samples_only_where_a_limit_is_set(tmp_path: Path) -> None:
    told: list[Progress] = []
    outcome = attempt("mnist", quick("mnist", limit=120, augment=True), tmp_path, told.append)
    assert len(outcome.dataset.train) == 120
    assert told[-1].steps == 3


def examples_of(name: str, data: Path, **config: Any) -> tuple[str, dict[str, int]]:
    """Load the data of a recipe. Returns its name and its examples by split."""
    recipe = recipes()[name]
    found = recipe.load(recipe.config(**config), data)
    return found.name, {split: len(getattr(found, split)) for split in ("train", "validation", "test")}


def test_the_declared_data_has_as_many_examples_as_the_recipe_loads(tmp_path: Path) -> None:
    for name in ("regressor", "classifier", "mnist"):
        data, examples = examples_of(name, tmp_path, **recipes()[name].fixture(tmp_path))
        assert recipes()[name].built_in[data] == examples


def test_the_declared_mnist_has_as_many_examples_as_its_files(mnist_folder: Path) -> None:
    data, examples = examples_of("mnist", mnist_folder)
    assert recipes()["mnist"].built_in[data] == examples


@pytest.mark.parametrize(
    "built_in",
    [{"My data": {"train": 1, "validation": 1, "test": 1}}, {"own": {"train": 1, "test": 1}}],
    ids=["name", "splits"],
)
def test_declared_data_needs_a_name_and_a_count_for_each_split(built_in: Any) -> None:
    with pytest.raises(ValueError, match="write it as"):
        replace(recipes()["regressor"], built_in=built_in)
