"""Run a recipe: train, save the checkpoint, reload it and evaluate it.

The command line and the training worker both call `run`.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar
from uuid import uuid4

import torch
from pydantic import ValidationError
from torch import nn

from models.artifacts import Artifacts
from models.catalog import specs
from models.checkpoints import artifact_files
from models.checkpoints.artifact_files import Content
from models.checkpoints.files import sync_folder
from models.checkpoints.layout import content_name
from models.checkpoints.location import DatasetFile
from models.checkpoints.record import Record, record_path
from models.checkpoints.state_dict import build, load, save_record, save_weights
from models.errors import CheckpointError
from training.data import limited
from training.datasets.opened import opened
from training.datasets.orders import cannot_learn_files
from training.drift import measured_drift
from training.fitting.early_stopping import Watch, Watched
from training.fitting.group import Group
from training.fitting.randomness import own_random_numbers
from training.outcomes import evaluated
from training.recipe import Dataset, Hyperparameters, Outcomes, Recipe, Report, Split, TrainingError, unknown_metric
from training.reference import measure
from training.rows import arguments_of, made_artifacts, prepared

C = TypeVar("C", bound=Hyperparameters)
_FEW = 64  # samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a run: the checkpoint at `path`, its record, and the reloaded network in eval mode.

    `dataset` is as the network takes it, `rows` as the recipe loaded it: the same for a one-tensor model. `outcomes`
    are those of the validation examples; None if they take another pass over them (see `outcomes.evaluated`).
    """

    path: Path
    record: Record
    network: nn.Module
    dataset: Dataset
    rows: Dataset
    outcomes: Outcomes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained network, and all that it was made of: see `Outcome`, and `made_artifacts`."""

    network: nn.Module
    rows: Dataset
    dataset: Dataset
    arguments: dict[str, Any]
    packed: Mapping[str, Any]
    artifacts: Artifacts
    files: Mapping[str, Content]


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
    dataset: DatasetFile | None = None,
    group: Group | None = None,
) -> Outcome:
    """Train, save, reload the file, evaluate it on the held-out splits, then rename it and write its record.

    Trains on `device`, with the whole dataset there unless it is streamed, and evaluates on the CPU. Without a dataset
    version, the recipe loads its data from the folder `data`.

    The checkpoint is `folder`/`file`; without `file` it is named after its digest and replaces no other. A checkpoint
    with a record is always complete and evaluated; the temporary file is removed even if the run fails.
    With a group, this is its rank 0. Raises TrainingError, PeerLost and whatever `report` raises.
    """
    _require_writable(folder, file)
    made = trained(name, recipe, config, data=data, report=report, device=device, dataset=dataset, group=group)
    with _draft(folder) as draft:
        sha256 = save_weights(made.network.state_dict(), draft)
        bare = Record(model=name, sha256=sha256, arguments=made.arguments, artifacts=made.packed)
        saved = _reloaded(bare, draft)
        metrics, outcomes = held_out(recipe, saved, made.dataset)
        record = replace(
            bare,
            config=config.model_dump(mode="json"),
            metrics=metrics,
            dataset=made.rows.name,
            dataset_sha256=made.rows.sha256,
            torch=torch.__version__,
            command=command,
            reference=measure(name, specs()[name], made.dataset.train.samples),
            drift=measured_drift(name, specs()[name], saved, made.dataset, made.artifacts),
        )
        path = folder / (file or content_name(record.sha256))
        artifact_files.write(made.files, folder)
        save_record(record, draft)
        _rename(draft, path)
    return Outcome(path=path, record=record, network=saved, dataset=made.dataset, rows=made.rows, outcomes=outcomes)


def trained(
    name: str,
    recipe: Recipe[C],
    config: C,
    *,
    data: Path,
    report: Report,
    device: str,
    dataset: DatasetFile | None,
    group: Group | None,
) -> Trained:
    """Train, as any rank of a group if there is one. Raises as `run` does."""
    rows = loaded(name, recipe, config, data, dataset)
    packed, artifacts, files = made_artifacts(recipe, config, rows)
    ready = prepared(specs()[name], rows, artifacts)
    arguments = arguments_of(recipe, config, artifacts)
    with own_random_numbers(config.seed):
        network = _new(name, arguments)
        _require_metric(name, recipe, network, ready)
        if group is not None:
            group.require_same(
                {
                    "software": torch.__version__,
                    "hyperparameters": config.model_dump_json(),
                    "data": (rows.name, rows.sha256, len(rows.train), len(rows.validation)),
                    "artifacts": packed,
                    "network": (arguments, [(key, value.shape) for key, value in network.state_dict().items()]),
                }
            )
        network = network.to(device)
        watched = Watched(report, Watch(recipe.metric, recipe.higher_is_better), group)
        recipe.fit(network, ready.to(device), config, watched)
        watched.require_shared()
    return Trained(
        network=network,
        rows=rows,
        dataset=ready,
        arguments=arguments,
        packed=packed,
        artifacts=artifacts,
        files=files,
    )


def loaded(name: str, recipe: Recipe[C], config: C, data: Path, file: DatasetFile | None) -> Dataset:
    """Open a dataset version, or have the recipe load its own data. Raises TrainingError."""
    if file is None:
        return recipe.load(config, data)
    if recipe.target is None:
        raise TrainingError(cannot_learn_files(name))
    return limited(opened(name, specs()[name], recipe, file), getattr(config, "limit", None))


def _new(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return build(specs()[name], arguments)
    except CheckpointError as err:
        raise TrainingError(str(err)) from err


def _require_metric(name: str, recipe: Recipe[C], network: nn.Module, dataset: Dataset) -> None:
    """Raise TrainingError before training if `evaluate` does not return the recipe's metric.

    It is tried on a few samples. If it needs more, its own error is left to the evaluation after the training.
    """
    few = Split(dataset.validation.samples[:_FEW], dataset.validation.targets[:_FEW])
    try:
        with own_random_numbers():
            figures = recipe.evaluate(network.eval(), few)
    except Exception:  # noqa: BLE001 - a recipe's code: it may raise anything
        return
    finally:
        network.train()
    if recipe.metric not in figures:
        raise TrainingError(f"training/{name}.py: {unknown_metric(recipe.metric, figures)}")


def _reloaded(record: Record, path: Path) -> nn.Module:
    """Load the network as the service does."""
    try:
        with own_random_numbers():
            network, _ = load(record.model, specs()[record.model], path, record)
    except CheckpointError as err:
        raise TrainingError(f"the weights of this run cannot be served; a lower lr may help: {err}") from err
    return network


def reopened(
    name: str, recipe: Recipe[C], path: Path, data: Path, file: DatasetFile | None = None
) -> tuple[nn.Module, Record, Dataset]:
    """Load a checkpoint's network, on the CPU and in eval mode, its record and its dataset: `file`, if there is one.

    Without a record, the dataset is the recipe's default. Raises TrainingError if the checkpoint or the data cannot be
    read.
    """
    try:
        network, record = load(name, specs()[name], path)
        config = recipe.config.model_validate(record.config)
        artifacts = artifact_files.load(record.artifacts, path.parent)
    except CheckpointError as err:
        raise TrainingError(str(err)) from err
    except ValidationError as err:
        raise TrainingError(f"{record_path(path).name} names hyperparameters that {name} does not have") from err
    if file is None and record.dataset_sha256:
        raise TrainingError(
            f"{path.name} was trained on {record.dataset}: name its file with --dataset-file, or its version "
            "in the store with --dataset"
        )
    return network, record, prepared(specs()[name], loaded(name, recipe, config, data, file), artifacts)


def held_out(recipe: Recipe[C], network: nn.Module, dataset: Dataset) -> tuple[dict[str, float], Outcomes | None]:
    """Compute the metrics on the test split and, prefixed with `validation_`, on the validation split.

    Returns them, and the outcomes of the validation examples as `evaluated` does.
    """
    figures = (recipe.details or recipe.evaluate)(network, dataset.test)
    validation, outcomes = evaluated(recipe, network, dataset.validation)
    figures |= {f"validation_{key}": value for key, value in validation.items()}
    if not all(map(math.isfinite, figures.values())):
        raise TrainingError(f"the trained network's {recipe.metric} is not finite: lower lr")
    return figures, outcomes


def _require_writable(folder: Path, file: str | None) -> None:
    """Raise TrainingError before training if the checkpoint cannot be saved."""
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
    """Temporary path of a checkpoint, hidden in the folder and removed afterwards."""
    path = folder / f".{uuid4().hex}.pt"
    try:
        yield path
    except OSError as err:
        raise _unwritable(err) from err
    finally:
        path.unlink(missing_ok=True)
        record_path(path).unlink(missing_ok=True)


def _rename(draft: Path, path: Path) -> None:
    """Rename the draft. Nothing is written, so that a full disk cannot damage an older checkpoint."""
    draft.replace(path)
    record_path(draft).replace(record_path(path))
    sync_folder(path.parent)


def _unwritable(err: OSError) -> TrainingError:
    return TrainingError(
        f"the checkpoint cannot be written ({err.strerror}): free some space or choose another folder",
    )
