"""What every recipe keeps: each training/<name>.py with a RECIPE is tried, on data that needs no files."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.catalog import specs
from models.checkpoints import state_dict
from training.recipe import Cancelled, Dataset, Hyperparameters, Progress, Recipe, Report, TrainingError, recipes
from training.run import Outcome, run

CONTRACT = {
    *("epochs", "batch_size", "shuffle", "optimizer", "lr", "momentum", "alpha", "betas"),
    *("weight_decay", "activation", "seed"),
}
OWN = {"regressor": {"hidden"}, "classifier": {"hidden"}, "mnist": {"dataset", "augment", "limit", "num_workers"}}
NAMES = list(recipes())
pytestmark = pytest.mark.usefixtures("one_thread")
every_recipe = pytest.mark.parametrize("name", NAMES)


def quick(name: str, **values: Any) -> Hyperparameters:
    """A Config that needs no files."""
    config: type[Hyperparameters] = recipes()[name].config
    without_files = {"dataset": "digits"} if "dataset" in config.model_fields else {}
    return config(**without_files, **values)


def attempt(
    name: str,
    config: Hyperparameters,
    folder: Path,
    report: Report = lambda _: None,
    **changes: Any,
) -> Outcome:
    recipe: Recipe[Any] = replace(recipes()[name], **changes)
    return run(name, recipe, config, data=Path("nowhere"), folder=folder, report=report, command="a test")


def values_out_of_bounds() -> list[tuple[str, str, Any]]:
    """Every bound of every hyperparameter, overstepped."""
    found: list[tuple[str, str, Any]] = []
    for name in NAMES:
        for field, schema in properties(name).items():
            kinds = [schema, *schema.get("anyOf", [])]
            wrong = [kind["minimum"] - 1 for kind in kinds if "minimum" in kind]
            wrong += [kind["exclusiveMinimum"] for kind in kinds if "exclusiveMinimum" in kind]
            wrong += [kind["maximum"] + 1 for kind in kinds if "maximum" in kind]
            wrong += [kind["exclusiveMaximum"] for kind in kinds if "exclusiveMaximum" in kind]
            wrong += [[0.9, 1.0], [-0.1, 0.9], [0.9]] if "prefixItems" in schema else []
            found += [(name, field, value) for value in [*wrong, "nonsense", math.nan]]
    return found


def properties(name: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = recipes()[name].config.model_json_schema()["properties"]
    return schema


@every_recipe
def test_every_hyperparameter_has_a_default_and_a_meaning(name: str) -> None:
    schema = properties(name)
    assert schema.keys() >= CONTRACT | OWN.get(name, set())
    assert all("default" in field and field["description"] for field in schema.values())
    assert "$ref" not in str(schema)


@every_recipe
def test_the_defaults_are_within_their_own_bounds(name: str) -> None:
    config = recipes()[name].config
    assert config.model_validate(config().model_dump(mode="json")) == config()


@pytest.mark.parametrize(("name", "field", "value"), values_out_of_bounds())
def test_values_out_of_bounds_are_refused(name: str, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        recipes()[name].config(**{field: value})


@every_recipe
def test_an_unknown_hyperparameter_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        recipes()[name].config(learning_rate=0.1)


@pytest.mark.slow
@every_recipe
def test_the_loss_falls_and_the_last_report_is_the_end(name: str, tmp_path: Path) -> None:
    told: list[Progress] = []
    attempt(name, quick(name, epochs=5), tmp_path, told.append)
    assert told[-1].loss < told[0].loss
    assert told[-1].step == told[-1].steps
    assert told[-1].epoch == told[-1].epochs == 5
    assert [point.step for point in told] == sorted({point.step for point in told})


@every_recipe
def test_the_figures_are_those_of_the_reloaded_file(name: str, tmp_path: Path) -> None:
    outcome = attempt(name, quick(name), tmp_path)
    assert outcome.path == tmp_path / f"{outcome.record.sha256[:12]}.pt"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{outcome.path.stem}{end}" for end in (".json", ".pt")]
    network, record = state_dict.load(name, specs()[name], outcome.path)
    assert record == outcome.record
    recipe = recipes()[name]
    figures = {
        **recipe.evaluate(network, outcome.dataset.test),
        **{f"validation_{key}": value for key, value in recipe.evaluate(network, outcome.dataset.validation).items()},
    }
    figures |= recipe.details(network, outcome.dataset.test) if recipe.details else {}
    assert record.metrics == figures
    assert recipe.metric in figures
    assert recipe.config.model_validate(record.config) == quick(name)
    assert record.command == "a test"


@pytest.mark.slow
@every_recipe
def test_the_same_seed_gives_the_same_bits_whatever_else_draws_random_numbers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = attempt(name, quick(name, seed=5), tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert attempt(name, quick(name, seed=5), tmp_path).record.sha256 == first.record.sha256
    assert attempt(name, quick(name, seed=6), tmp_path).record.sha256 != first.record.sha256


@every_recipe
@pytest.mark.parametrize("reason", [Cancelled, KeyboardInterrupt])
def test_a_report_that_raises_ends_the_run_at_once_and_leaves_no_file(
    name: str,
    reason: type[BaseException],
    tmp_path: Path,
) -> None:
    told = []

    def cancel(progress: Progress) -> None:
        told.append(progress)
        raise reason

    with pytest.raises(reason):
        attempt(name, quick(name, epochs=100), tmp_path, cancel)
    assert len(told) == 1
    assert not list(tmp_path.iterdir())


@every_recipe
def test_weights_that_are_not_finite_stop_the_run_and_name_the_learning_rate(name: str, tmp_path: Path) -> None:
    def poisoned(network: nn.Module, dataset: Dataset, config: Hyperparameters, report: Report) -> None:
        nn.init.constant_(list(network.parameters())[-1], math.nan)
        recipes()[name].fit(network, dataset, config, report)

    with pytest.raises(TrainingError, match=r"finite.*lr|lr.*finite"):
        attempt(name, quick(name), tmp_path, fit=poisoned)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@every_recipe
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("optimizer", value) for value in ("sgd", "momentum", "rmsprop", "adam", "adamw")),
        *(("activation", value) for value in ("relu", "sigmoid", "tanh", "softplus")),
        *(("schedule", value) for value in ("constant", "cooldown", "linear", "cosine", "one_cycle")),
    ],
)
def test_every_choice_makes_a_network_that_loads_again(name: str, field: str, value: str, tmp_path: Path) -> None:
    outcome = attempt(name, quick(name, epochs=1, lr=0.001, **{field: value}), tmp_path)
    assert outcome.record.config[field] == value
    assert state_dict.load(name, specs()[name], outcome.path)[1] == outcome.record


@pytest.mark.parametrize("name", ["regressor", "classifier"])
def test_the_hidden_width_is_a_constructor_argument(name: str, tmp_path: Path) -> None:
    outcome = attempt(name, quick(name, hidden=3, epochs=1), tmp_path)
    assert outcome.record.arguments["hidden"] == 3
    assert next(outcome.network.parameters()).shape[0] == 3


def test_every_preset_is_within_the_bounds_of_its_recipe() -> None:
    for recipe in recipes().values():
        for values in recipe.presets.values():
            assert recipe.config(**values).model_dump(exclude_defaults=True) == dict(values)


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
