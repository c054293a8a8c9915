"""Compare runs of one recipe that differ in one hyperparameter.

All runs use the same data and seed and, if the shapes are equal, the same initial weights. Nothing is saved. Metrics
are measured on the validation split, so that the test split stays unused for the final evaluation.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from models.catalog import specs
from models.checkpoints.location import DatasetFile
from models.eager import built
from training.fitting.early_stopping import Watch, Watched
from training.fitting.randomness import own_random_numbers
from training.flags import properties, read_config, shown
from training.recipe import Hyperparameters, Progress, Recipe, TrainingError, checked
from training.rows import arguments_of, made_artifacts, prepared
from training.run import loaded

C = TypeVar("C", bound=Hyperparameters)


@dataclass(kw_only=True)
class Trial:
    """One run of a comparison. If it failed, `failure` is the reason and `metrics` is empty."""

    label: str
    history: list[Progress] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str = ""


def variants(
    config: type[C],
    varied: str,
    values: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
) -> tuple[str, dict[str, C]]:
    """Parse `optimizer=sgd,adam`: the hyperparameter's name, and a Config for each of its values.

    The numbers of a tuple are separated by spaces: `betas=0.9 0.99,0.8 0.9`. Raises ValueError with a valid example.
    """
    name, _, listed = varied.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    known = properties(config)
    if name not in known:
        raise ValueError(f"--vary {varied}: there is no hyperparameter {name!r}; there are {', '.join(known)}")
    if name in values:
        raise ValueError(f"--vary {varied}: {name} is also set by its own flag; remove one of the two")
    words = list(dict.fromkeys(word.strip() for word in listed.split(",") if word.strip()))
    if len(words) < 2:
        example = ",".join(_examples(known[name]))
        raise ValueError(f"--vary {varied}: name at least two different values, as in --vary {name}={example}")
    return name, {word: read_config(config, {**values, name: _typed(word, known[name])}, preset) for word in words}


def _typed(word: str, schema: Mapping[str, Any]) -> object:
    if schema.get("maxItems"):
        return word.split()
    nullable = any(choice.get("type") == "null" for choice in schema.get("anyOf", []))
    return None if nullable and word == "none" else word


def _examples(schema: Mapping[str, Any]) -> Sequence[str]:
    """Two valid values of the field."""
    if "enum" in schema:
        return list(map(str, schema["enum"][:2]))
    usual = schema["default"]
    if isinstance(usual, bool):
        return ["on", "off"]
    if isinstance(usual, list | tuple):
        return [shown(usual), "0.8 0.99"]
    return [shown(usual), shown(usual / 2 if isinstance(usual, float) and usual else (usual or 0) + 1)]


def compare(
    name: str,
    recipe: Recipe[C],
    configs: Mapping[str, C],
    data: Path,
    tell: Callable[[Trial], None],
    *,
    device: str,
    check: Callable[[], None] = lambda: None,
    dataset: DatasetFile | None = None,
) -> list[Trial]:
    """Run all configs in turn; call `check` after each report and `tell` after each run.

    Without a dataset version, the recipe loads its data from the folder `data`. Raises TrainingError if the data is
    missing or every run fails.
    """
    trials = []
    for label, config in configs.items():
        trial = _tried(name, recipe, config, data, label, device, check, dataset)
        trials.append(trial)
        tell(trial)
    if all(trial.failure for trial in trials):
        raise TrainingError(f"every run failed; the last one: {trials[-1].failure}")
    return trials


def _tried(
    name: str,
    recipe: Recipe[C],
    config: C,
    data: Path,
    label: str,
    device: str,
    check: Callable[[], None],
    dataset: DatasetFile | None,
) -> Trial:
    rows = loaded(name, recipe, config, data, dataset)
    _, artifacts, _ = made_artifacts(recipe, config, rows)
    ready = prepared(specs()[name], rows, artifacts).to(device)
    trial = Trial(label=label)
    with own_random_numbers(config.seed):
        network = built(specs()[name], arguments_of(recipe, config, artifacts)).to(device)
        began = time.perf_counter()
        try:
            watch = Watch(recipe.metric, recipe.higher_is_better)
            recipe.fit(network, ready, config, Watched(checked(trial.history.append, check), watch))
        except TrainingError as err:
            trial.failure = str(err)
        trial.seconds = time.perf_counter() - began
    if not trial.failure:
        trial.metrics = recipe.evaluate(network.eval(), ready.validation)
    return trial


def table(varied: str, trials: Sequence[Trial]) -> str:
    """Format the trials as a table, one row per run in the given order."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.metrics))
    rows = [[varied, "final loss", *(f"validation {key}" for key in keys), "seconds"]]
    for trial in trials:
        loss = f"{trial.history[-1].loss:.4g}" if trial.history and not trial.failure else "-"
        figures = [f"{trial.metrics[key]:.4g}" if key in trial.metrics else "-" for key in keys]
        rows.append([trial.label, loss, *figures, f"{trial.seconds:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([*lines, *(f"{trial.label} failed: {trial.failure}" for trial in trials if trial.failure)])
