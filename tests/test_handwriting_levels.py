"""Thresholds and smoothing of grey levels."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from models.handwriting.levels import otsu, percentile, smoothed


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (60, 75)])
def test_smoothing_is_the_median_of_three_by_three_pixels(size: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    expected = Image.fromarray(levels).filter(ImageFilter.MedianFilter(3))
    assert np.array_equal(smoothed(levels), np.asarray(expected))


def test_a_percentile_is_a_level_of_the_picture() -> None:
    levels = np.repeat(np.arange(100, dtype=np.uint8), 3)[None]
    assert percentile(levels, 0.99) == 98
    assert percentile(levels, 0.5) == 49
    assert percentile(np.full((3, 3), 7, np.uint8), 0.99) == 7


@pytest.mark.parametrize("shape", [(10, 20), (200,)])
def test_the_threshold_lies_between_two_groups_of_levels(shape: tuple[int, ...]) -> None:
    levels = np.array([10, 200] * 100, np.uint8).reshape(shape)
    threshold, strength = otsu(levels)
    assert 10 <= threshold < 200
    assert strength == 200
