"""Exports that ship with the checkpoints in models/pretrained, so that a first start needs no torch."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoints.code import network_digest
from models.checkpoints.record import Record
from models.spec import ByName, ModelSpec


def shipped_path(folder: Path, spec: ModelSpec, record: Record) -> Path:
    """Return the path of the export that ships with a checkpoint in `folder`.

    It changes with all that the export depends on: weights, arguments, the class of the network and its sources,
    and the samples of the example. So an export that was made of something else is not found.
    """
    samples = spec.preprocess(spec.example)
    network = [_names(spec.network), network_digest(spec)]
    made_of = [record.sha256, dict(record.arguments), network, str(samples.dtype), samples.shape]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    digest.update(samples.tobytes())
    return folder / f"{record.model}.{digest.hexdigest()[:12]}.safetensors"


def _names(network: Any) -> list[Any]:
    """Return the module and name of a network's class, and the arguments that are bound to it."""
    match network:
        case partial(func=inner, args=args, keywords=keywords):
            return [_names(inner), repr(args), repr(sorted(keywords.items()))]
        case ByName(module=module, name=name):
            return [module, name]
        case _:
            return [network.__module__, network.__qualname__]
