"""The samples that lie in one picture, each with its place, such as the digits of a number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL.Image import Image

from models.errors import InvalidInput

Place = tuple[int, int, int, int]  # left, top, right, bottom: pixels of the upright picture, the last two exclusive


class Segment(NamedTuple):
    """One sample: its entry, or the error if it cannot be read."""

    entry: NDArray[Any] | InvalidInput
    place: Place


SegmentReader = Callable[[Image], Sequence[Segment]]
