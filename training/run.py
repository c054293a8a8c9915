"""One run of a recipe, from the seed to a checkpoint whose figures were measured on the file itself.

The command line and the training worker both call `run`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar
from uuid import uuid4

import torch
from pydantic import ValidationError
from torch import nn

from models.catalog import specs
from models.checkpoints.files import sync_folder
from models.checkpoints.record import Record, record_path
from models.checkpoints.state_dict import load, save_record, save_weights
from models.checkpoints.storage import content_name
from models.errors import CheckpointError
from training.fitting.randomness import own_random_numbers
from training.recipe import Dataset, Hyperparameters, Recipe, Report, TrainingError

C = TypeVar("C", bound=Hyperparameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run leaves: the checkpoint at `path` and its record; the network, as reloaded, in eval mode."""

    path: Path
    record: Record
    network: nn.Module
    dataset: Dataset


def run(
    name: str,
    recipe: Recipe[C],
    config: C,
    *,
    data: Path,
    folder: Path,
    file: str | None = None,
    report: Report,
    command: str,
    device: str = "cpu",
) -> Outcome:
    """Fit, save, reload that file, evaluate it on the held-out splits, and only then give it its name and record.

    It is fitted on `device`, with the whole data set there, and evaluated on the CPU.

    The checkpoint is `folder`/`file`; without `file` it is named after its own digest, and so replaces no other.
    However a run ends, a checkpoint with a record is whole and evaluated, and no draft is left behind.
    Raises TrainingError and whatever `report` raises.
    """
    _require_writable(folder, file)
    dataset = recipe.load(config, data)
    arguments = recipe.arguments(config)
    with own_random_numbers(config.seed):
        network = specs()[name].network(**arguments).to(device)
        recipe.fit(network, dataset.to(device), config, report)
    with _draft(folder) as draft:
        bare = Record(model=name, sha256=save_weights(network.state_dict(), draft), arguments=arguments)
        saved = _reloaded(bare, draft)
        record = replace(
            bare,
            config=config.model_dump(mode="json"),
            metrics=held_out_figures(recipe, saved, dataset),
            dataset=dataset.name,
            torch=torch.__version__,
            command=command,
        )
        path = folder / (file or content_name(record.sha256))
        save_record(record, draft)
        _rename(draft, path)
    return Outcome(path=path, record=record, network=saved, dataset=dataset)


def _reloaded(record: Record, path: Path) -> nn.Module:
    """The network as the service will load it."""
    try:
        with own_random_numbers():
            network, _ = load(record.model, specs()[record.model], path, record)
    except CheckpointError as err:
        raise TrainingError(f"the weights of this run cannot be served; a lower lr may help: {err}") from err
    return network


def reopened(name: str, recipe: Recipe[C], path: Path, data: Path) -> tuple[nn.Module, Record, Dataset]:
    """A checkpoint's network, on the CPU and in eval mode, its record, and the dataset that it was fitted to.

    Of a checkpoint without a record, the dataset is the recipe's default. Raises TrainingError where the checkpoint or
    the data cannot be read.
    """
    try:
        network, record = load(name, specs()[name], path)
        config = recipe.config.model_validate(record.config)
    except CheckpointError as err:
        raise TrainingError(str(err)) from err
    except ValidationError as err:
        raise TrainingError(f"{record_path(path).name} names hyperparameters that {name} does not have") from err
    return network, record, recipe.load(config, data)


def held_out_figures(recipe: Recipe[C], network: nn.Module, dataset: Dataset) -> dict[str, float]:
    """The figures on the test split, and those on the validation split with `validation_` before their names."""
    figures = (recipe.details or recipe.evaluate)(network, dataset.test)
    for key, value in recipe.evaluate(network, dataset.validation).items():
        figures[f"validation_{key}"] = value
    if not all(map(math.isfinite, figures.values())):
        raise TrainingError(f"the trained network's {recipe.metric} is not finite: lower lr")
    return figures


def _require_writable(folder: Path, file: str | None) -> None:
    """Find out before the fit, not after it, that nothing can be saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise _unwritable(err) from err
    if file is not None and (folder / file).is_dir():
        raise TrainingError(f"the checkpoint cannot be written: {file} is a folder")


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A checkpoint's path under a hidden name, of which nothing is left afterwards."""
    path = folder / f".{uuid4().hex}.pt"
    try:
        yield path
    except OSError as err:
        raise _unwritable(err) from err
    finally:
        path.unlink(missing_ok=True)
        record_path(path).unlink(missing_ok=True)


def _rename(draft: Path, path: Path) -> None:
    """Give the draft its name. Nothing more is written here, so that a full disk leaves an older checkpoint whole."""
    draft.replace(path)
    record_path(draft).replace(record_path(path))
    sync_folder(path.parent)


def _unwritable(err: OSError) -> TrainingError:
    return TrainingError(
        f"the checkpoint cannot be written ({err.strerror}): make room, or choose another place for it",
    )
