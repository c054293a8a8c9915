"""The examined part of a picture: distances of its pixels from the paper, of the whole or of the part with marks."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from models.handwriting.components import Box
from models.handwriting.ready import FIELD
from models.spec import Array

Corner = tuple[int, int]  # y, x


class View(NamedTuple):
    """Distances from the paper, uint8 (height, width), of a part of the picture."""

    near: Array  # from the paper around each pixel
    far: Array  # from the paper of the whole picture
    corner: Corner  # of this part, in pixels of the picture
    scale: int  # pixels of the picture in one of these, along each side
    sides: tuple[float, float]  # height and width of the whole picture, in these pixels
    flat: bool  # the paper is flat, with nothing at the edges of the picture
    joined: bool = False  # all marks are connected
    shaded: bool = False  # some of the paper is in a shadow

    @property
    def is_large(self) -> bool:
        """Whether the picture is large enough to look for other marks than those of one digit."""
        return min(self.sides) > 2 * FIELD

    @classmethod
    def whole(cls, near: Array, far: Array | None = None, corner: Corner = (0, 0), *, flat: bool = False) -> "View":
        """Return the view of a whole picture, or of the inside of a frame."""
        return cls(near, near if far is None else far, corner, 1, (near.shape[0], near.shape[1]), flat)

    @classmethod
    def part(cls, distance: Array, box: Box, shape: tuple[int, ...], scale: int) -> "View":
        """Return the view of the part of flat paper in a box, reduced by the scale. `shape`: of the whole picture."""
        near = np.asarray(Image.fromarray(np.ascontiguousarray(distance)).reduce(scale)) if scale > 1 else distance
        return cls(near, near, (box[0].start, box[1].start), scale, (shape[0] / scale, shape[1] / scale), True)
