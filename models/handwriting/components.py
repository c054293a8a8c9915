"""Keep the connected components that are handwriting; drop the background around the page, frames and specks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.spec import Array

Box = tuple[slice, slice]  # rows, columns

_MARGIN = 0.06  # of a side: a frame this close to the picture's edge counts as running along it
_ALONG = 0.8  # of a side: a component that covers more of it runs along it
_HELD = 0.2  # of a side: a component that touches more of it comes from outside the picture
_LEAST = 0.04  # of the picture's longer side: smaller components are not writing if there are larger ones
_FAR = 0.15  # of the writing's longer side: a speck further away than this is dropped
_MARKED, _LEAST_LEVEL = 100, 128  # grey levels of a marked pixel, and of the strongest one at least
_MOST_PARTS, _MOST_MARKED = 6, 368  # connected parts; pixels, 0.47 of 28 x 28
_SHADE = 0.75  # of the strength of the strongest large component: a weaker one is the corner of a shadow
_SPECK = 0.15  # of the largest component's pixels: a component with fewer may be a speck


@dataclass(slots=True)
class _Component:
    """A connected component: its pixel count, its bounding box, and whether it belongs to the background."""

    count: int
    top: int
    bottom: int  # inclusive, as `right`
    left: int
    right: int
    around: bool = False

    @property
    def longer_side(self) -> int:
        return max(self.bottom - self.top, self.right - self.left) + 1

    def gap(self, other: "_Component") -> int:
        """Pixels between the two bounding boxes; 0 if they touch."""
        down = max(self.top - other.bottom, other.top - self.bottom, 0)
        return max(down, self.left - other.right, other.left - self.right)


def writing(marks: Array, outliers: Array | None = None) -> Array:
    """Select the marks that are writing, bool (height, width).

    `outliers`, bool (height, width), are the pixels that differ from the paper of the whole picture; the marks also
    differ from the paper in their neighbourhood. Background is dropped first: components that cover a corner or part of
    a side, or run along a side, and components at the edge whose outliers do so. Then specks are dropped: small
    components far from the largest one. If all components look like background, they are all taken for writing.
    """
    half = halved(marks)
    labels = labelled(half)
    components = _components(labels, _around(labels))
    if outliers is not None and any(side.any() for side in (half[0], half[-1], half[:, 0], half[:, -1])):
        _extend_around(components, labels, labelled(halved(outliers)))
    return _selected(marks, labels, components, _LEAST * max(half.shape))


def without_specks(marks: Array, sides: tuple[float, float]) -> Array:
    """Select the marks that are writing, bool (height, width), of a part of a picture of these sides that has no
    background.
    """
    labels = labelled(halved(marks))
    components = _components(labels, np.zeros(int(labels.max()) + 1, bool))
    return _selected(marks, labels, components, _LEAST * max(sides) / 2)


def _selected(marks: Array, labels: Array, components: dict[int, _Component], least: float) -> Array:
    """Drop the components of background, then specks; components smaller than `least` are no writing if there are
    larger ones. The labels are those of the halved marks.
    """
    inside = {label: component for label, component in components.items() if not component.around}
    if not any(component.longer_side >= least for component in inside.values()):
        inside = components
    if len(inside) == len(components) < 2:
        return marks
    main = max(inside.values(), key=lambda component: component.count)
    near = _FAR * main.longer_side
    kept = np.zeros(len(components) + 1, bool)
    for label, component in inside.items():
        kept[label] = component.count >= _SPECK * main.count or component.gap(main) <= near
    wanted: Array = kept[labels]
    whole = wanted.repeat(2, axis=0).repeat(2, axis=1)[: marks.shape[0], : marks.shape[1]]
    return marks & whole


def without_shades(marks: Array, distance: Array) -> Array:
    """Drop the components of marks, bool (height, width), that differ much less from the paper than a large one does,
    such as the corner of a shadow.
    """
    labels = labelled(marks)
    counts = np.bincount(labels.reshape(-1))
    if len(counts) < 3:
        return marks
    strengths = np.bincount(labels.reshape(-1), weights=distance.reshape(-1)) / np.maximum(counts, 1)
    large = counts >= _SPECK * counts[1:].max()
    large[0] = False
    kept: Array = strengths >= _SHADE * strengths[large].max()
    kept[0] = False
    return kept[labels]


class Parts(NamedTuple):
    """The connected components of marks."""

    labels: Array  # int32 (height, width), numbered from 1, 0 for no mark
    boxes: list[Box]  # of each component, rows and columns


def parts_of(marks: Array) -> Parts:
    """Find the connected components of marks, bool (height, width)."""
    from scipy import ndimage  # noqa: PLC0415 - see labelled

    labels = labelled(marks)
    return Parts(labels, ndimage.find_objects(labels))


def box_of(marks: Array, margin: int = 0) -> Box:
    """Return rows and columns of the bounding box of marks, bool (height, width), and a margin around it."""
    spans = []
    for reached in (marks.any(axis=1), marks.any(axis=0)):
        places = np.flatnonzero(reached)
        spans.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    return widened((spans[0], spans[1]), margin, marks.shape)


def widened(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """Return a box with a margin around it, within a picture of that shape (height, width)."""
    y, x = (
        slice(max(part.start - margin, 0), min(part.stop + margin, side)) for part, side in zip(box, shape, strict=True)
    )
    return y, x


def box_around(boxes: Sequence[Box]) -> Box:
    """Return the bounding box of boxes, at least one."""
    y, x = (slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1))
    return y, x


def is_one_digit(digit: Array) -> bool:
    """Whether ink, uint8 (height, width) scaled to the box of MNIST, looks like a digit of the training data.

    Of the 60,000 training digits 1 has more than 6 parts, none has more than 0.41 of its field marked, and each has a
    pixel of 254 or 255.
    """
    from scipy import ndimage  # noqa: PLC0415 - see labelled

    marks = digit > _MARKED
    parts = ndimage.label(marks, np.ones((3, 3), bool))[1]
    return bool(digit.max() >= _LEAST_LEVEL and parts <= _MOST_PARTS and marks.sum() <= _MOST_MARKED)


def _extend_around(components: dict[int, _Component], labels: Array, wider: Array) -> None:
    """Count components at the picture's edge as background if the wider component that contains them is background."""
    outside: Array = _around(wider)[wider]
    edge = np.zeros(labels.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    for label in np.unique(labels[outside & edge]).tolist():
        if label:
            components[label].around = True


def halved(marks: Array) -> Array:
    """Halve both sides: a pixel is marked if one of its two by two is. This bridges the smallest gaps."""
    height, width = marks.shape
    even = np.pad(marks, [(0, height % 2), (0, width % 2)]) if height % 2 or width % 2 else marks
    rows: Array = even[::2] | even[1::2]
    halved: Array = rows[:, ::2] | rows[:, 1::2]
    return halved


def labelled(marks: Array) -> Array:
    """Label connected components, 8-connected: int32 (height, width), numbered from 1, 0 for no mark."""
    from scipy import ndimage  # noqa: PLC0415 - 0.2 s and 30 MB, only for processes that read photos

    labels: Array = ndimage.label(marks, np.ones((3, 3), bool))[0]
    return labels


def _components(labels: Array, around: Array) -> dict[int, _Component]:
    """Measure the component of each label; `around`, bool by label, marks the background."""
    from scipy import ndimage  # noqa: PLC0415 - see labelled

    counts = np.bincount(labels.reshape(-1)).tolist()
    return {
        label: _Component(counts[label], y.start, y.stop - 1, x.start, x.stop - 1, bool(around[label]))
        for label, (y, x) in enumerate(ndimage.find_objects(labels), start=1)
    }


def _around(labels: Array) -> Array:
    """Find the background: bool by label, True if it covers a corner or part of a side or runs along a side."""
    number = int(labels.max()) + 1
    around = np.zeros(number, bool)
    around[labels[[0, 0, -1, -1], [0, -1, 0, -1]]] = True
    for side in (labels, labels[::-1], labels.T, labels.T[::-1]):
        margin = side[: max(1, round(_MARGIN * len(side)))]
        if not margin.any():
            continue
        width = margin.shape[1]
        reached = np.zeros((number, width), bool)
        reached[margin, np.arange(width)] = True
        around |= (np.bincount(margin[0], minlength=number) / width > _HELD) | (reached.mean(axis=1) > _ALONG)
    around[0] = False
    return around
