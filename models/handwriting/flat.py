"""The cheap, sure case: thin ink of one kind on flat paper, with nothing around it. Most drawings and scans are such.

Other pictures are left to `paper` and `frames`, which take several times as long.
"""

import numpy as np
from PIL import Image

from models.handwriting.frames import may_hold_frame
from models.handwriting.paper import FITTED_SIZE, distances, has_wide_marks
from models.spec import Array

_SAME = 10  # grey levels: pixels of flat paper differ less
_ALIKE = 24  # grey levels: ink is darker than the paper or lighter, and differs less in the other direction


def distance_from_flat_paper(colours: Array) -> Array | None:
    """Return the distance of each pixel from the paper, uint8 (height, width); None if the paper may not be flat.

    The picture is uint8 (channels, height, width). Paper is flat if all outermost pixels have its colour, and no marks
    are so wide that they may be other paper. The marks must be all darker than the paper or all lighter, and none of
    them a frame.
    """
    if min(colours.shape[1:]) < FITTED_SIZE:
        return None
    edges = np.concatenate([colours[:, 0], colours[:, -1], colours[:, :, 0], colours[:, :, -1]], axis=1)
    if np.ptp(edges, axis=1).max() > _SAME:
        return None
    paper = np.median(edges, axis=1).astype(np.uint8)[:, None, None]
    distance = distances(colours, paper)
    if has_wide_marks(distance) or not _is_one_sided(colours, paper):
        return None
    return None if may_hold_frame(distance) else distance


def _is_one_sided(colours: Array, paper: Array) -> bool:
    """Whether all marks are darker than the paper, or all lighter."""
    if len(colours) == 1:
        darkest, lightest = int(colours.min()), int(colours.max())
        return int(paper.min()) - darkest <= _ALIKE or lightest - int(paper.min()) <= _ALIKE
    step = min(colours.shape[1:]) // FITTED_SIZE
    small = [np.asarray(Image.fromarray(plane).reduce(step)).astype(np.int64) for plane in colours]
    difference = (np.sum(small, axis=0) - int(paper.sum())) / len(small)
    return bool(-difference.min() <= _ALIKE or difference.max() <= _ALIKE)
