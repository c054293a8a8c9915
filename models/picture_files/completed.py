"""Fill in the pixels that a truncated picture lacks, if they are few."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.picture_files.stripped import MOST_MISSING, ends_too_early

_BLOCK = 8  # pixels: JPEG and WebP are decoded in blocks of this size or a multiple
_SAME = 8  # grey levels: a larger difference between the two decoded pictures marks a missing pixel


def completed(pictures: Iterable[Image.Image]) -> Image.Image:
    """Return the picture with each missing pixel replaced by the last one above it that is there.

    `pictures` are a truncated file with several paddings: pixels that differ between the first two that can be decoded
    are missing. Raises InvalidInput if too many are.
    """
    decoded = list(islice((pixels for picture in pictures if (pixels := _pixels(picture)) is not None), 2))
    if len(decoded) < 2:
        raise ends_too_early()
    first, second = decoded
    differ: NDArray[np.bool_] = np.any(np.maximum(first, second) - np.minimum(first, second) > _SAME, axis=2)
    missing = _blocks(differ)
    if missing.mean() > MOST_MISSING:
        raise ends_too_early()
    height, width = missing.shape
    above = np.maximum.accumulate(np.where(missing, 0, np.arange(height)[:, None]), axis=0)
    return Image.fromarray(first[above, np.arange(width)])


def _pixels(picture: Image.Image) -> NDArray[np.uint8] | None:
    """Decode a picture, uint8 (height, width, 3 or 4); None if that fails."""
    try:
        return np.asarray(picture.convert("RGBA" if "A" in picture.getbands() else "RGB"))
    except Exception:  # noqa: BLE001 - Pillow's decoders raise many kinds
        return None


def _blocks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Extend each marked pixel to its block: bool (height, width)."""
    for axis in (0, 1):
        starts = np.arange(0, mask.shape[axis], _BLOCK)
        whole: NDArray[np.bool_] = np.logical_or.reduceat(mask, starts, axis=axis).repeat(_BLOCK, axis=axis)
        mask = whole.take(np.arange(mask.shape[axis]), axis=axis)
    return mask
