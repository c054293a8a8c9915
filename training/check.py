"""Contract checks of recipes, and the second half of `torchloop check`. The first is `service.check`."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from models.answers import example_of, require_declared, require_described, require_served, values
from models.catalog import specs
from models.checkpoints import artifact_files, state_dict
from models.contract import Broken, Check, Command, checks, require
from training.flags import properties
from training.recipe import Cancelled, Dataset, Hyperparameters, Progress, Recipe, Report, TrainingError, discovered
from training.run import Outcome, run

AnyRecipe = Recipe[Any]
_CHOSEN = ("optimizer", "activation", "schedule")
_EPOCHS = 5
_MANY = 100
_SMALL_LR = 0.001


def every_hyperparameter_has_a_default_and_a_meaning(_: str, recipe: AnyRecipe, __: Path) -> None:
    """Each field of Config has a default and a description, and a type that a flag can have."""
    schema = properties(recipe.config)
    require(issubclass(recipe.config, Hyperparameters), "derive Config from training.recipe.Hyperparameters")
    for field, of_field in schema.items():
        require("default" in of_field, f"{field} has no default")
        require(bool(of_field.get("description")), f"{field} has no description: give its Field one")
        require("$ref" not in str(of_field), f"{field} is a class: use numbers, texts, Literal and tuples")


def the_defaults_are_within_their_own_bounds(_: str, recipe: AnyRecipe, __: Path) -> None:
    """The defaults are valid, and the same after a passage through JSON."""
    try:
        again = recipe.config.model_validate(recipe.config().model_dump(mode="json"))
    except ValidationError as err:
        raise Broken(f"a default is out of its bounds: {err.errors()[0]['loc'][0]}") from err
    require(again == recipe.config(), "a default changes when it is stored as JSON")


def every_preset_is_within_the_bounds(_: str, recipe: AnyRecipe, __: Path) -> None:
    """A preset holds valid hyperparameters that differ from the defaults."""
    for name, preset in recipe.presets.items():
        kept = recipe.config(**preset).model_dump(exclude_defaults=True)
        require(kept == dict(preset), f"the preset {name} repeats a default: leave it out")


def values_out_of_bounds_are_refused(_: str, recipe: AnyRecipe, __: Path) -> None:
    """Each value beyond a bound, of another type or not finite is an error of its field."""
    for field, value in values_out_of_bounds(recipe):
        try:
            recipe.config(**{field: value})
        except ValidationError as err:
            require(err.errors()[0]["loc"][0] == field, f"{field}={value!r} is reported as an error of another field")
        else:
            raise Broken(f"{field}={value!r} is accepted: give {field} bounds or choices")


def an_unknown_hyperparameter_is_refused(_: str, recipe: AnyRecipe, __: Path) -> None:
    """Config forbids other fields."""
    try:
        recipe.config(learning_rate=0.1)
    except ValidationError:
        return
    raise Broken('Config accepts unknown fields: keep the model_config of Hyperparameters (extra="forbid")')


def the_loss_falls_and_the_last_report_is_the_end(name: str, recipe: AnyRecipe, folder: Path) -> None:
    """A run of five epochs reports its steps in order and ends with a lower loss."""
    told: list[Progress] = []
    _attempt(name, recipe, folder, told.append, epochs=_EPOCHS)
    require(bool(told), "fit made no report: call report")
    last, steps = told[-1], [point.step for point in told]
    require(last.loss < told[0].loss, f"the loss went from {told[0].loss:.4g} to {last.loss:.4g}: try another lr")
    ended = last.step == last.steps and last.epoch == last.epochs == _EPOCHS
    require(ended, f"the last report is of step {last.step} of {last.steps}, epoch {last.epoch} of {last.epochs}")
    require(steps == sorted(set(steps)), "the steps of the reports do not increase")


def the_figures_are_those_of_the_reloaded_file(name: str, recipe: AnyRecipe, folder: Path) -> None:
    """The record of a run holds what `evaluate` says about the network in its file."""
    outcome, config = _attempt(name, recipe, folder), _config(recipe, folder)
    kept = sorted(path.name for path in _runs(folder).iterdir())
    files = [f"{outcome.path.stem}.json", f"{outcome.path.stem}.pt", *artifact_files.names(outcome.record)]
    require(kept == sorted(files), f"the run left {', '.join(kept)}")
    network, record = state_dict.load(name, specs()[name], outcome.path)
    held_out = recipe.evaluate(network, outcome.dataset.validation)
    figures = {**recipe.evaluate(network, outcome.dataset.test)}
    figures |= {f"validation_{key}": value for key, value in held_out.items()}
    figures |= recipe.details(network, outcome.dataset.test) if recipe.details else {}
    require(record.metrics == figures, "evaluate gives other figures for the same network: it must draw nothing")
    require(recipe.config.model_validate(record.config) == config, "the record has other hyperparameters than the run")


def the_trained_network_answers_with_the_artifacts_of_its_run(name: str, recipe: AnyRecipe, folder: Path) -> None:
    """The example and random samples have finite answers of the declared form, the same alone and in company."""
    outcome, spec = _attempt(name, recipe, folder), specs()[name]
    artifacts = artifact_files.load(outcome.record.artifacts, outcome.path.parent)
    samples = example_of(spec, artifacts)
    found = values(spec, outcome.network, samples, artifacts)
    require_declared(spec, found, len(samples))
    require_described(spec, found, len(samples), artifacts)
    require_served(spec, outcome.network, artifacts)


def the_same_seed_gives_the_same_bits(name: str, recipe: AnyRecipe, folder: Path) -> None:
    """Whatever else draws random numbers; another seed gives other weights."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _attempt(name, recipe, folder, seed=5)
    require(torch.equal(before, torch.get_rng_state()), "the run changes the random numbers of the rest of the process")
    torch.manual_seed(2)
    again = _attempt(name, recipe, folder, seed=5)
    same = again.record.sha256 == first.record.sha256
    require(same, "two runs with the same seed differ: draw random numbers from a generator seeded with config.seed")
    other = _attempt(name, recipe, folder, seed=6)
    require(other.record.sha256 != first.record.sha256, "another seed gives the same weights: use config.seed")


def a_report_that_raises_ends_the_run_at_once_and_leaves_no_file(name: str, recipe: AnyRecipe, folder: Path) -> None:
    """Cancellation, and Ctrl-C."""
    for reason in (Cancelled, KeyboardInterrupt):
        told: list[Progress] = []

        def cancel(progress: Progress, told: list[Progress] = told, reason: type[BaseException] = reason) -> None:
            told.append(progress)
            raise reason

        try:
            _attempt(name, recipe, folder, cancel, epochs=_MANY)
        except reason:
            require(len(told) == 1, "fit goes on after report has raised: let its exceptions pass")
        else:
            raise Broken("fit swallows the exceptions of report, or never calls it: a run could not be cancelled")
        require(not any(_runs(folder).iterdir()), "a cancelled run left a file")


def weights_that_are_not_finite_stop_the_run_and_name_the_learning_rate(
    name: str, recipe: AnyRecipe, folder: Path
) -> None:
    """A run that diverges is an error that says so."""

    def poisoned(network: nn.Module, dataset: Dataset, config: Hyperparameters, report: Report) -> None:
        nn.init.constant_(list(network.parameters())[-1], math.nan)
        recipe.fit(network, dataset, config, report)

    try:
        _attempt(name, replace(recipe, fit=poisoned), folder)
    except TrainingError as err:
        words = str(err)
        require("finite" in words and "lr" in words, f"the error of a diverged run names no lr: {words}")
        require(not any(_runs(folder).iterdir()), "a diverged run left a file")
    # Otherwise fit has replaced the weights: those of the file are finite, as it was loaded.


def values_out_of_bounds(recipe: AnyRecipe) -> Iterator[tuple[str, Any]]:
    """Yield each field with values beyond its bounds, of another type and not finite."""
    for field, schema in properties(recipe.config).items():
        for kind in [schema, *schema.get("anyOf", [])]:
            yield from ((field, kind[bound] - 1) for bound in ("minimum",) if bound in kind)
            yield from ((field, kind[bound] + 1) for bound in ("maximum",) if bound in kind)
            yield from ((field, kind[bound]) for bound in ("exclusiveMinimum", "exclusiveMaximum") if bound in kind)
        if field == "betas":
            yield from ((field, pair) for pair in ([0.9, 1.0], [-0.1, 0.9], [0.9]))
        if schema.get("type") != "string" or "enum" in schema:
            yield field, "nonsense"
        yield field, math.nan


def _loads_again(field: str, value: str) -> Check[AnyRecipe]:
    """Return the check that a run with this choice makes a network that loads again."""

    choice: dict[str, Any] = {field: value}

    def run_with_choice(name: str, recipe: AnyRecipe, folder: Path) -> None:
        outcome = _attempt(name, recipe, folder, epochs=1, lr=_SMALL_LR, **choice)
        require(outcome.record.config[field] == value, f"the record has {field}={outcome.record.config[field]}")
        loaded = state_dict.load(name, specs()[name], outcome.path)[1]
        require(loaded == outcome.record, "the record is another one after loading")

    return Check(f"{field} {value} makes a network that loads again", run_with_choice)


def _config(recipe: AnyRecipe, folder: Path, **values: Any) -> Hyperparameters:
    """Have the recipe write its fixture, and return its hyperparameters with `values`."""
    data = _data(folder)
    data.mkdir(exist_ok=True)
    config: Hyperparameters = recipe.config(**{**recipe.fixture(data), **values})
    return config


def _attempt(name: str, recipe: AnyRecipe, folder: Path, report: Report = lambda _: None, **values: Any) -> Outcome:
    """Run the recipe on its fixture."""
    config = _config(recipe, folder, **values)
    return run(
        name,
        recipe,
        config,
        data=_data(folder),
        folder=_runs(folder),
        report=report,
        command="torchloop check",
    )


def _data(folder: Path) -> Path:
    return folder / "data"


def _runs(folder: Path) -> Path:
    return folder / "runs"


CHECKS: tuple[Check[AnyRecipe], ...] = (
    *checks(
        every_hyperparameter_has_a_default_and_a_meaning,
        the_defaults_are_within_their_own_bounds,
        every_preset_is_within_the_bounds,
        values_out_of_bounds_are_refused,
        an_unknown_hyperparameter_is_refused,
        the_loss_falls_and_the_last_report_is_the_end,
        the_figures_are_those_of_the_reloaded_file,
        the_trained_network_answers_with_the_artifacts_of_its_run,
        the_same_seed_gives_the_same_bits,
        a_report_that_raises_ends_the_run_at_once_and_leaves_no_file,
        weights_that_are_not_finite_stop_the_run_and_name_the_learning_rate,
    ),
    *(_loads_again(field, value) for field in _CHOSEN for value in properties(Hyperparameters)[field]["enum"]),
)


def main(words: Sequence[str] | None = None, *, prog: str = "python -m training.check") -> int:
    """Check the recipes. Returns the exit status, see Command."""
    torch.set_num_threads(1)  # as fast for small networks, and the cores are often shared
    return Command("training", discovered, CHECKS, required=False).main(words, prog)


if __name__ == "__main__":
    sys.exit(main())
