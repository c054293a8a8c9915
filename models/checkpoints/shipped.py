"""Exports that ship with the checkpoints in models/pretrained, so that a first start needs no torch."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoints import artifact_files
from models.checkpoints.code import network_digest
from models.checkpoints.record import Record
from models.coding import Coder, example_samples
from models.samples import Columns
from models.spec import Array, ByName, ModelSpec


def shipped_path(folder: Path, spec: ModelSpec, record: Record, coder: Coder | None = None) -> Path:
    """Return the path of the export that ships with a checkpoint in `folder`. Raises CheckpointError.

    It changes with all that the export depends on: weights, arguments, the class of the network and its sources,
    and the samples of the example, as its artifacts encode them: by `coder`, if given. So an export that was made of
    something else is not found.
    """
    if coder is None and spec.inputs:
        coder = Coder(spec, artifact_files.load(record.artifacts, folder))
    samples = example_samples(spec, coder)
    network = [_names(spec.network), network_digest(spec)]
    made_of: list[Any] = [record.sha256, dict(record.arguments), network]
    arrays = [samples] if not isinstance(samples, Columns) else list(_arrays(samples))
    made_of += [part for array in arrays for part in (str(array.dtype), array.shape)]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return folder / f"{record.model}.{digest.hexdigest()[:12]}.safetensors"


def _arrays(samples: Columns) -> Iterator[Array]:
    """Yield the arrays of each sample, in the order of their names."""
    for _, column in sorted(samples.arrays.items()):
        yield from column


def _names(network: Any) -> list[Any]:
    """Return the module and name of a network's class, and the arguments that are bound to it."""
    match network:
        case partial(func=inner, args=args, keywords=keywords):
            return [_names(inner), repr(args), repr(sorted(keywords.items()))]
        case ByName(module=module, name=name):
            return [module, name]
        case _:
            return [network.__module__, network.__qualname__]
