"""Tell a plain digit from other marks by a small network: two convolutions and two dense layers, in NumPy.

`python -m training.plainness` draws the training pictures and writes its weights, `plainness.npz`.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.spec import Array

Numbers = NDArray[np.float32]

NUMBERS = Path(__file__).with_suffix(".npz")
SIDE = 28  # pixels of the field
KERNELS, STRIDES, FILTERS, HIDDEN = (5, 3), (2, 2), (16, 32), 64
SIDES = (12, 5)  # pixels, after each convolution


class Looks(NamedTuple):
    """Whether marks look like one digit without other marks."""

    at_all: bool
    surely: bool


def looks(field: Array) -> Looks:
    """Classify a field in the form of MNIST, uint8 (28, 28)."""
    numbers = _numbers()
    score = strangeness(field, numbers)
    return Looks(score <= float(numbers["threshold"]), score <= float(numbers["sure"]))


def strangeness(field: Array, numbers: dict[str, Numbers]) -> float:
    """Score a field, uint8 (28, 28), with the network's numbers: a logit, greater for other marks than for digits."""
    planes = field.reshape(-1) * np.float32(1 / 255)  # (784)
    for layer, (patches, filters) in enumerate(zip(_PATCHES, FILTERS, strict=True)):
        products = planes[patches] @ numbers[f"filters{layer}"] + numbers[f"offsets{layer}"]
        planes = np.maximum(products, 0).reshape(-1)  # (height * width * filters)
        assert planes.size == SIDES[layer] ** 2 * filters
    hidden = np.maximum(planes @ numbers["hidden"] + numbers["hidden_offsets"], 0)  # (HIDDEN)
    return float(hidden @ numbers["out"] + numbers["out_offset"])


@cache
def _numbers() -> dict[str, Numbers]:
    with np.load(NUMBERS, allow_pickle=False) as stored:  # float16
        return {name: stored[name].astype(np.float32) for name in stored.files}


def _patches(side: int, channels: int, kernel: int, stride: int) -> NDArray[np.int64]:
    """Return the places of the pixels below each position of a filter: int64 (positions, kernel * kernel * channels).

    They count through (side, side, channels).
    """
    places = np.arange(side * side * channels).reshape(side, side, channels)
    windows = np.lib.stride_tricks.sliding_window_view(places, (kernel, kernel), axis=(0, 1))[::stride, ::stride]
    return np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2)).reshape(-1, kernel * kernel * channels)


_PATCHES = tuple(map(_patches, (SIDE, *SIDES), (1, *FILTERS), KERNELS, STRIDES))
