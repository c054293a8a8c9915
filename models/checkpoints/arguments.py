"""Suggest constructor arguments for a state_dict whose shapes are those of another network of the same class."""

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints.matching import match
from models.errors import CheckpointError
from models.spec import ModelSpec

_TRIES = 32  # networks built on the meta device
_LARGEST = 2**16  # width that is tried


def hint(spec: ModelSpec, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return a sentence on the constructor arguments: those that fit if they are found; empty if there are none."""
    names = [name for name in _keywords(spec) if name not in _bound(spec)]
    if not names:
        return ""
    for tried in _candidates(names, _keywords(spec), arguments, state):
        if _fits(spec, tried, state):
            return f". It fits with these constructor arguments: ?arguments={json.dumps(tried)}"
    return f". If it was saved with other constructor arguments ({', '.join(names)}), send them as ?arguments={{...}}"


def _candidates(
    names: list[str], defaults: Mapping[str, Any], arguments: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Iterator[dict[str, Any]]:
    """Yield arguments with one whole number replaced by a size of a tensor in the file."""
    sizes = list(dict.fromkeys(size for tensor in state.values() for size in tensor.shape if 0 < size <= _LARGEST))
    whole = [name for name in names if type(arguments.get(name, defaults[name])) is int]
    tries = [{**arguments, name: size} for name in whole for size in sizes]
    yield from tries[:_TRIES]


def _fits(spec: ModelSpec, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    try:
        with torch.device("meta"):
            outline: nn.Module = spec.network(**arguments)
        match(outline, state)
    except (CheckpointError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        return False
    return True


def _keywords(spec: ModelSpec) -> dict[str, Any]:
    """Return the names and defaults of the network's keyword arguments; empty if they cannot be read."""
    try:
        parameters = inspect.signature(spec.network).parameters
    except (ValueError, TypeError, CheckpointError):
        return {}
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    }


def _bound(spec: ModelSpec) -> set[str]:
    """Return the arguments that the spec has set with functools.partial."""
    return set(getattr(spec.network, "keywords", {}))
