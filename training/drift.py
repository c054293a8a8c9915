"""Measure the reference of drift: features of the training split, and answers to the validation split."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.answers import values
from models.artifacts import Artifacts
from models.drift.reference import measured
from models.errors import in_one_line
from models.samples import Batch
from models.spec import ModelSpec
from training.recipe import Dataset

log = logging.getLogger(__name__)
MOST = 50_000  # samples of a split
_PART = 4096  # samples at once: bounds the memory
_BATCH = 256  # samples in one forward pass


def measured_drift(
    model: str, spec: ModelSpec, network: nn.Module, dataset: Dataset, artifacts: Artifacts
) -> Mapping[str, Any]:
    """Return `drift` of the record of a network in eval mode, on the CPU; if it cannot be measured, the reason."""
    answers = (values(spec, network, part, artifacts) for part in _parts(dataset.validation.samples, _BATCH))
    try:
        return measured(spec, _parts(dataset.train.samples, _PART), answers, artifacts).as_json()
    except Exception as err:  # noqa: BLE001 - a model author's code: the version is good without a reference
        reason = f"{type(err).__name__}: {in_one_line(err)}" if not isinstance(err, ValueError) else in_one_line(err)
        log.warning("no reference of drift", extra={"model": model, "reason": reason})
        return {"fault": f"its reference could not be measured: {reason}"[:300]}


def _parts(samples: Any, size: int) -> Iterator[Batch]:
    """Yield some samples of a split as a request has them, `size` at a time.

    They are drawn at random: every second one of MNIST is from the same group of writers.
    """
    count = len(samples)
    if count <= MOST:
        yield from map(_as_served, samples.split(size))
        return
    drawn = _drawn(count)
    for begin in range(0, MOST, size):
        yield _as_served(samples[drawn[begin : begin + size]])


def _drawn(count: int) -> Tensor:
    """Return MOST positions among `count` in their order, the same ones each time."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:MOST].sort().values


def _as_served(part: Any) -> Batch:
    return part.detach().cpu().numpy() if isinstance(part, Tensor) else part.columns
