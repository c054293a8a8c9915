"""Tell a plain digit from other marks by a small network: two convolutions and two dense layers, in NumPy.

`python -m training.plainness` draws the training pictures and writes its weights, `plainness.npz`.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.spec import Array

Numbers = NDArray[np.float32]

NUMBERS = Path(__file__).with_suffix(".npz")
SIDE, STRIDE = 28, 2  # pixels of the field; both convolutions halve it
KERNELS, FILTERS, HIDDEN = (5, 3), (16, 32), 64
SIDES = (12, 5)  # pixels, after each convolution


def looks_plain(field: Array) -> bool:
    """Whether a field in the form of MNIST, uint8 (28, 28), looks like one digit without other marks."""
    numbers = _numbers()
    return strangeness(field, numbers) <= float(numbers["threshold"])


def strangeness(field: Array, numbers: dict[str, Numbers]) -> float:
    """Score a field, uint8 (28, 28), with the network's numbers: a logit, greater for other marks than for digits."""
    planes = field.reshape(-1) * np.float32(1 / 255)  # (784)
    for layer, (patches, filters) in enumerate(zip(_PATCHES, FILTERS, strict=True)):
        products = planes[patches] @ numbers[f"filters{layer}"] + numbers[f"offsets{layer}"]
        planes = np.maximum(products, 0).reshape(-1)  # (height * width * filters)
        assert planes.size == SIDES[layer] ** 2 * filters
    hidden = np.maximum(planes @ numbers["hidden"] + numbers["hidden_offsets"], 0)  # (64)
    return float(hidden @ numbers["out"] + numbers["out_offset"])


@cache
def _numbers() -> dict[str, Numbers]:
    with np.load(NUMBERS, allow_pickle=False) as stored:  # float16
        return {name: stored[name].astype(np.float32) for name in stored.files}


def _patches(side: int, channels: int, kernel: int) -> NDArray[np.int64]:
    """Return the places of the pixels below each position of a filter: int64 (positions, kernel * kernel * channels).

    They count through (side, side, channels).
    """
    places = np.arange(side * side * channels).reshape(side, side, channels)
    windows = np.lib.stride_tricks.sliding_window_view(places, (kernel, kernel), axis=(0, 1))[::STRIDE, ::STRIDE]
    return np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2)).reshape(-1, kernel * kernel * channels)


_PATCHES = (_patches(SIDE, 1, KERNELS[0]), _patches(SIDES[0], FILTERS[0], KERNELS[1]))
