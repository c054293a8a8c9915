"""Inputs by whose values the answers of a model with named inputs have a gradient. Needs no torch."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np

from models.coding import Coder
from models.errors import InvalidInput
from models.random_samples import random_sample
from models.signature import Array, Category, Input, Tensor, Text
from models.spec import ModelSpec

_TRIALS = 8  # random samples that show what `encode` does to an input

Encoded = tuple[Mapping[str, Any], Mapping[str, Array]]  # values of a sample by input, and its arrays


def may_be_explained(spec: ModelSpec) -> bool:
    """Return whether an input is an array of numbers, or a picture."""
    return not spec.inputs or any(not _fault_of_kind(kind) for kind in spec.inputs.values())


def without_gradient(spec: ModelSpec, coder: Coder) -> dict[str, str]:
    """Return the inputs without a gradient, and the reason of each in words.

    Each of the others is a separate array for the network: floating-point numbers, or a picture. A spec's `encode`
    is tried with the example and random samples: it must leave the array of the input unchanged, and make no other of
    it.
    """
    faults = {name: _fault_of_kind(kind) for name, kind in spec.inputs.items()}
    if spec.encode is not None and not all(faults.values()):
        trials = _trials(spec, coder)
        faults = {
            name: fault or _fault_of_encode(name, spec.inputs[name], trials, coder) for name, fault in faults.items()
        }
    return {name: fault for name, fault in faults.items() if fault}


def _fault_of_kind(kind: Input) -> str:
    """Say why values of an input have no gradient; empty if they may have one."""
    if isinstance(kind, Text | Category):
        return f"a {kind.kind} has no gradient"
    if isinstance(kind, Tensor) and np.dtype(kind.dtype).kind != "f":
        return f"{'booleans' if np.dtype(kind.dtype).kind == 'b' else 'whole numbers'} have no gradient"
    return ""


def _trials(spec: ModelSpec, coder: Coder) -> list[Encoded]:
    """Encode the example and random samples, without those that the model refuses."""
    rng = np.random.default_rng(0)
    found: list[Encoded] = []
    for sample in [*spec.example, *(random_sample(spec, rng) for _ in range(_TRIALS))]:
        with suppress(InvalidInput):
            values = coder.values(sample)
            found.append((values, coder.encoded(values)))
    return found


def _fault_of_encode(name: str, kind: Input, trials: Sequence[Encoded], coder: Coder) -> str:
    """Say why the gradient of the network's arrays is not that of the input; empty if it is."""
    given = [(values[name], arrays.get(name)) for values, arrays in trials if values[name] is not None]
    if not given or not all(_same(array, kind.array(value)) for value, array in given):
        return "the model's `encode` changes it, so that the gradient of the network's arrays cannot be mapped to it"
    for (values, arrays), (others, _) in pairwise(trials):
        with suppress(InvalidInput):
            changed = coder.encoded({**values, name: others[name]})
            if not all(_same(changed[other], array) for other, array in arrays.items() if other != name):
                return "the model's `encode` makes several arrays of it, so that its gradient is that of none of them"
    return ""


def _same(array: Array | None, wanted: Array) -> bool:
    """Return whether an array has these numbers; floating-point ones may be narrower."""
    if array is None or (array.dtype.kind == "f") != (wanted.dtype.kind == "f"):
        return False
    return np.array_equal(array, wanted.astype(array.dtype), equal_nan=array.dtype.kind == "f")
