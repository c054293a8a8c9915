"""Compare the answers to samples of different lengths alone and in company, before a network goes live."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.coding import Coder
from models.errors import CheckpointError, InvalidInput
from models.random_samples import random_sample
from models.samples import Columns, all_finite
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Run

_RANDOM = 12  # samples in addition to the example
_TOLERANCE = 1e-3  # of the largest output: sums in another order differ by 1e-6, answers that see the padding by more
_FEW = 0.05  # of the elements: labels that are nearly equal may change places with the last digit of a sum


def require_independent(model: str, spec: ModelSpec, run: Run, coder: Coder) -> None:
    """Raise CheckpointError if the padding changes an answer: the network ignores the mask or the lengths.

    Random samples that `encode` or the network refuses are left out; `torchloop check` reports them.
    """
    rows, alone = [], []
    for row in _rows(spec, coder):
        try:
            found = run(Columns.of([row]))
        except Exception:  # noqa: BLE001, S112 - a model author's network, on numbers that it may not be made for
            continue
        if all_finite(found):
            rows.append(row)
            alone.append(_named(found))
    if len(rows) < 2:
        return
    together = _named(run(Columns.of(rows)))
    for name, column in together.items():
        pairs = [(np.asarray(column[place]), np.asarray(single[name][0])) for place, single in enumerate(alone)]
        if not all(one.shape == other.shape for one, other in pairs) or _differ(pairs):
            padded = ", ".join(spec.padding)
            raise CheckpointError(
                f"{model} answers a sample differently if longer ones are computed with it: the network must leave out "
                f"the padding of {padded}, by the lengths or the mask that `Padded` passes to its forward",
            )


def _rows(spec: ModelSpec, coder: Coder) -> list[Mapping[str, Array]]:
    """Return encoded samples of several lengths, the same in each run."""
    rng = np.random.default_rng(0)
    rows = []
    for sample in [*spec.example, *(random_sample(spec, rng) for _ in range(_RANDOM))]:
        try:
            rows.append(coder(sample))
        except InvalidInput:
            continue
    return rows


def _named(values: Any) -> Mapping[str, Any]:
    return values.arrays if isinstance(values, Columns) else {"": values}


def _differ(pairs: list[tuple[Array, Array]]) -> bool:
    together, alone = (np.concatenate([np.ravel(pair[side]) for pair in pairs]).astype(np.float64) for side in (0, 1))
    difference = np.abs(together - alone)
    if pairs[0][0].dtype.kind == "f":
        return bool(difference.max(initial=0) > _TOLERANCE * np.abs(alone).max(initial=0))
    rounded = 1 if pairs[0][0].dtype == np.uint8 else 0  # a shade of a picture
    return bool(np.mean(difference > rounded) > _FEW) if len(difference) else False
