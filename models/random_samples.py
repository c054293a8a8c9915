"""Random valid samples of a signature, for the proof of exports and for contract checks."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from models.arrays import RARE
from models.signature import TRIED_LENGTH, Input, Tensor, Text, is_required
from models.spec import ModelSpec

_MOST_WORDS = 40  # of a text
_COMMON = 0.5  # share of the samples whose variable axes have one length


def random_sample(spec: ModelSpec, rng: np.random.Generator) -> dict[str, Any]:
    """Return a random valid sample of named inputs, with defaults left out. Texts have words of the example, too."""
    length = _common_length(spec.inputs.values(), rng)
    sample = {name: random_value(kind, rng, length) for name, kind in spec.inputs.items()}
    for name, kind in spec.inputs.items():
        if isinstance(kind, Text) and sample[name] is not None and rng.random() < 0.5:
            given = [one if isinstance(one, str) else one.get(name) for one in spec.example]
            words = [word for text in given if text for word in text.split()] or [sample[name]]
            chosen = " ".join(rng.choice(words, int(rng.integers(1, _MOST_WORDS))).tolist())
            sample[name] = chosen[: kind.max_chars]
    return sample


def random_value(kind: Input, rng: np.random.Generator, length: int | None = None) -> Any:
    """Return a random valid value, now and then None if the input is optional; see Tensor.random for `length`."""
    if not is_required(kind) and rng.random() < RARE:
        return None
    return kind.random(rng, length) if isinstance(kind, Tensor) else kind.random(rng)


def _common_length(inputs: Iterable[Input], rng: np.random.Generator) -> int | None:
    """Return now and then a length for all variable axes of tensors, for inputs that must be as long as each other."""
    several = sum(kind.shape.count(None) for kind in inputs if isinstance(kind, Tensor)) > 1
    return int(rng.integers(1, TRIED_LENGTH + 1)) if several and rng.random() < _COMMON else None
