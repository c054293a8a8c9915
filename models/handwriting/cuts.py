"""Find the paper's colour in pictures that were cut to the ink, of which half or more is ink."""

import numpy as np

from models.spec import Array

_LEVELS = -20, 295  # grey levels: a surface beyond them was fitted through ink and paper alike
_CORNER = 0.04  # of the shorter side


def paper_of_a_cut(colours: Array, surface: Array) -> Array | None:
    """Return the paper's colour, (3,), if `surface` cannot be the paper's; else None.

    `colours` and `surface` are float32 (height, width, 3). Paper is the dark or the light half of the pixels, whichever
    has more of the corners: a cut leaves paper there.
    """
    if _LEVELS[0] <= surface.min() and surface.max() <= _LEVELS[1]:
        return None
    grey = colours.mean(axis=2)
    light = grey > (grey.min() + grey.max()) / 2
    size = max(1, round(_CORNER * min(grey.shape)))
    corners = [light[y, x].mean() for y in (slice(size), slice(-size, None)) for x in (slice(size), slice(-size, None))]
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]]).mean()
    share = 2.0 * float(np.mean(np.array(corners) > 0.5)) + float(border)  # border decides between two and two corners
    paper: Array = np.median(colours[light if share > 1.5 else ~light], axis=0)
    return paper
