"""Check uploads, and save them in the store: a state_dict, or a bundle with record and artifacts."""

import hashlib
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.answers import example_of, values
from models.artifacts import Artifacts, takes_artifacts
from models.checkpoints import artifact_files, bundle, state_dict
from models.checkpoints.bundle import BUNDLED
from models.checkpoints.record import Record, read_verified
from models.checkpoints.storage import Storage
from models.errors import CheckpointError, in_one_line
from models.messages import Adopt
from models.outputs import description
from models.spec import ModelSpec
from training.recipe import Recipe

_NONE: Artifacts = {}


def adopt(order: Adopt, spec: ModelSpec, recipe: Recipe[Any] | None) -> Record:
    """Build the network from an upload, save it in the store, and return its record, without metrics.

    The upload is opened before anything is written. Raises CheckpointError if the model cannot be served from it,
    OSError if the store cannot be written, and ObjectsUnavailable.
    """
    return _bundle(order, spec) if order.bundle else _state_dict(order, spec, recipe)


def _state_dict(order: Adopt, spec: ModelSpec, recipe: Recipe[Any] | None) -> Record:
    network, notes = state_dict.restore(spec, order.arguments, order.path.read_bytes(), "the upload")
    if _takes_artifacts(spec):
        err = _failure(spec, network, _NONE)
        made = recipe is not None and recipe.artifacts is not None
        if err is not None or made:
            shown = f"the example raises {type(err).__name__}: {in_one_line(err)}" if err else "it answers wrongly"
            raise CheckpointError(
                f"models/{order.model}.py needs artifacts, which a state_dict file does not carry (without them, "
                f"{shown}): {BUNDLED}"
            ) from err
    return _kept(order, network, Record(model=order.model, sha256="", arguments=order.arguments, notes=notes))


def _bundle(order: Adopt, spec: ModelSpec) -> Record:
    storage, found = Storage.at(order.store), bundle.read(order.model, order.path)
    record = found.record
    with storage.unpacking() as folder:
        content, _ = read_verified(order.model, found.unpack(folder), record)
        artifacts = artifact_files.load(record.artifacts, folder)
        network, notes = state_dict.restore(spec, record.arguments, content, "the weights in the upload")
        if _takes_artifacts(spec) and (err := _failure(spec, network, artifacts)) is not None:
            raise CheckpointError(
                f"models/{order.model}.py does not answer its example with the artifacts in the upload "
                f"({type(err).__name__}: {in_one_line(err)}): send those that belong to these weights and to this code"
            ) from err
        artifact_files.copy(record, folder, storage.checkpoints(order.model))
        for name in artifact_files.names(record):
            storage.publish(storage.checkpoints(order.model) / name)
    notes = list(dict.fromkeys([*record.notes, *notes]))
    return _kept(order, network, replace(record, dataset="", metrics={}, notes=notes))


def _kept(order: Adopt, network: nn.Module, record: Record) -> Record:
    """Save the weights as torch.save writes them, and complete their record."""
    content = state_dict.to_bytes(network.state_dict())
    Storage.at(order.store).keep(order.model, content)
    sha256 = hashlib.sha256(content).hexdigest()
    return replace(record, sha256=sha256, torch=torch.__version__, command="uploaded")


def _takes_artifacts(spec: ModelSpec) -> bool:
    return any(map(takes_artifacts, filter(None, (spec.encode, spec.postprocess, spec.describe))))


def _failure(spec: ModelSpec, network: nn.Module, artifacts: Artifacts) -> Exception | None:
    """Return the error of answering the example; None if there is none."""
    try:
        list(description(spec, artifacts)(values(spec, network.eval(), example_of(spec, artifacts), artifacts)))
    except Exception as err:  # noqa: BLE001 - functions of the model may raise anything
        return err
    return None
