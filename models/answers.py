"""Answers of a PyTorch network to samples of its spec, for the contract checks of specs and recipes."""

from types import MappingProxyType
from typing import Any

import numpy as np

from models.artifacts import Artifacts
from models.checkpoints.parity import random_entries
from models.coding import Coder, example_samples
from models.contract import require
from models.eager import Network, eager
from models.errors import InvalidInput
from models.outputs import description, postprocessing
from models.predictions import predictions_fault, values_fault
from models.random_samples import random_sample
from models.samples import Batch, Columns, all_finite, joined
from models.spec import Array, ModelSpec

NONE: Artifacts = MappingProxyType({})  # the artifacts of a network that was not trained
_TOLERANCE = 1e-5  # of the largest number, at least of 1
_RANDOM = 40  # samples


def values(spec: ModelSpec, network: Network, samples: Batch, artifacts: Artifacts = NONE) -> Any:
    """Compute outputs and postprocess them: the values of N samples, a Batch."""
    return postprocessing(spec, artifacts)(eager(network, spec)(samples))


def example_of(spec: ModelSpec, artifacts: Artifacts = NONE) -> Batch:
    """Return the spec's example as the network takes it. Raises CheckpointError if `encode` refuses it."""
    return example_samples(spec, Coder(spec, artifacts) if spec.inputs else None)


def random_samples(spec: ModelSpec, artifacts: Artifacts = NONE) -> Batch:
    """Return random samples, the same in each run: bounds, defaults and several lengths, so that padding shows.

    For named inputs they begin with the example; those that the spec's own `encode` refuses are left out.
    """
    rng = np.random.default_rng(0)
    if not spec.inputs:
        return np.ascontiguousarray(spec.preprocess(random_entries(spec.tensor, spec.example, _RANDOM, rng)))
    coder = Coder(spec, artifacts)
    rows = [coder(sample) for sample in spec.example]
    for _ in range(_RANDOM):
        try:
            rows.append(coder(random_sample(spec, rng)))
        except InvalidInput:
            continue
    return Columns.of(rows)


def require_declared(spec: ModelSpec, found: Any, count: int) -> None:
    """Raise Broken unless the values of `count` samples have the form that the spec declares."""
    fault = values_fault(spec, found, count)
    require(fault is None, str(fault))


def require_described(spec: ModelSpec, found: Any, count: int, artifacts: Artifacts = NONE) -> None:
    """Raise Broken unless `describe` returns a prediction of the declared form for each of `count` samples."""
    fault = predictions_fault(spec, list(description(spec, artifacts)(found)), count)
    require(fault is None, str(fault))


def require_independent(spec: ModelSpec, network: Network, samples: Batch, artifacts: Artifacts = NONE) -> None:
    """Raise Broken unless each sample has the same values alone as in a batch with the others."""
    together = values(spec, network, samples, artifacts)
    alone = [values(spec, network, samples[row : row + 1], artifacts) for row in range(len(samples))]
    padded = "; honour the mask or the lengths of padded arrays" if spec.padding else ""
    otherwise = f"an answer changes with the other samples of its batch: compute each row by itself{padded}"
    require_same(together, joined(alone), otherwise, tolerance=_TOLERANCE)


def require_served(spec: ModelSpec, network: Network, artifacts: Artifacts = NONE) -> None:
    """Raise Broken unless random samples have finite values of the declared form, the same alone and in company."""
    samples = random_samples(spec, artifacts)
    found = values(spec, network, samples, artifacts)
    require_declared(spec, found, len(samples))
    bounds = "the inputs" if spec.inputs else "entry"
    require(all_finite(found), f"an answer is NaN or infinity for numbers within the bounds of {bounds}: narrow them")
    require_independent(spec, network, samples, artifacts)


def require_same(found: Batch, wanted: Batch, otherwise: str, *, tolerance: float = 0) -> None:
    """Raise Broken unless two batches have equal shapes and dtypes and, within the tolerance, equal numbers."""
    rows, others = _rows(found), _rows(wanted)
    sizes = (float(np.nan_to_num(np.abs(array)).max(initial=0)) for row in others for array in row)
    atol = tolerance * max(1.0, *sizes) if tolerance else 0.0
    same = len(rows) == len(others) and all(
        len(row) == len(other) and all(map(_close, row, other, [atol] * len(row)))
        for row, other in zip(rows, others, strict=True)
    )
    require(same, otherwise)


def _close(found: Array, wanted: Array, atol: float) -> bool:
    if atol and wanted.dtype == np.uint8:
        atol = 1  # shade of a picture: a number at the edge is rounded up or down
    return (found.shape, found.dtype) == (wanted.shape, wanted.dtype) and np.allclose(
        found.astype(float), wanted.astype(float), rtol=0, atol=atol, equal_nan=True
    )


def _rows(batch: Batch) -> list[list[Array]]:
    """Return the arrays of each sample."""
    if isinstance(batch, Columns):
        return [[np.asarray(array) for array in batch.sample(row).values()] for row in range(len(batch))]
    return [[np.asarray(row)] for row in batch]
