"""What of the marks on a page is the writing: not the table around the page, not a frame, not a speck of dust."""

from dataclasses import dataclass

import numpy as np

from models.spec import Array

_MARGIN = 0.06  # of a side: a frame drawn this close to the picture's edge runs along it
_ALONG = 0.8  # of a side: what covers more of it runs along it
_HELD = 0.2  # of a side: what touches more of it comes from outside the picture
_LEAST = 0.04  # of the picture's longer side: smaller marks are no writing where there is more
_FAR = 0.15  # of the writing's longer side: how far from it a speck has to lie to be left out
_SPECK = 0.15  # of the largest piece's marks: a piece of fewer may be a speck


@dataclass(slots=True)
class _Piece:
    """Marks that hang together: their number, their bounds, and whether they lie around the page."""

    count: int
    top: int
    bottom: int  # inclusive, as `right`
    left: int
    right: int
    around: bool = False

    @property
    def longer_side(self) -> int:
        return max(self.bottom - self.top, self.right - self.left) + 1

    def gap(self, other: "_Piece") -> int:
        """How many pixels part the bounds; 0 where they touch."""
        down = max(self.top - other.bottom, other.top - self.bottom, 0)
        return max(down, self.left - other.right, other.left - self.right)


def writing(marks: Array, outliers: Array | None = None) -> Array:
    """Bool (height, width) -> the marks that are writing.

    `outliers`, bool (height, width): more than the marks, the places too that only their neighbourhood takes for paper.
    What lies around the page goes: pieces that hold a corner of the picture or a part of a side, or run along one, and
    those at its edge that do so by their outliers; then specks: small pieces, far from the largest one. Where nothing
    else would be left, they are the writing.
    """
    halved = _halved(marks)
    labels = _labelled(halved)
    pieces = _pieces(labels)
    if outliers is not None:
        _extend_around(pieces, labels, _labelled(_halved(outliers)))
    inside = {label: piece for label, piece in pieces.items() if not piece.around}
    if not any(piece.longer_side >= _LEAST * max(halved.shape) for piece in inside.values()):
        inside = pieces
    if len(inside) == len(pieces) < 2:
        return marks
    main = max(inside.values(), key=lambda piece: piece.count)
    near = _FAR * main.longer_side
    kept = [label for label, piece in inside.items() if piece.count >= _SPECK * main.count or piece.gap(main) <= near]
    wanted: Array = np.isin(labels, kept)
    whole = wanted.repeat(2, axis=0).repeat(2, axis=1)[: marks.shape[0], : marks.shape[1]]
    return marks & whole


def _extend_around(pieces: dict[int, _Piece], labels: Array, wider: Array) -> None:
    """Pieces at the picture's edge lie around the page where the wider piece that holds them does."""
    outside: Array = np.isin(wider, list(_around(wider)))
    edge = np.zeros(labels.shape, bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    for label in np.unique(labels[outside & edge]).tolist():
        if label:
            pieces[label].around = True


def _halved(marks: Array) -> Array:
    """A pixel for each two by two, marked where one of them is: it bridges the smallest gaps."""
    height, width = marks.shape
    even = np.pad(marks, [(0, height % 2), (0, width % 2)])
    rows: Array = even[::2] | even[1::2]
    halved: Array = rows[:, ::2] | rows[:, 1::2]
    return halved


def _labelled(marks: Array) -> Array:
    """int64, 0 where there is no mark; marks that touch, at a corner too, have the same number.

    Rows are cut into runs; runs of neighbouring rows that touch are joined.
    """
    height, width = marks.shape
    edges = np.diff(np.pad(marks, [(0, 0), (1, 1)]).astype(np.int8), axis=1)
    rows, begins = np.nonzero(edges > 0)
    ends = np.nonzero(edges < 0)[1]
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    # Places in one line of rows, a gap of one between them: run i of row y touches those of row y + 1 in reach.
    places = rows * (width + 2)
    first = np.searchsorted(places + ends, places + width + 2 + begins, side="left")
    last = np.searchsorted(places + begins, places + width + 2 + ends, side="right")
    for run, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for other in range(begin, end):
            parents[root(other)] = root(run)
    numbers = np.array([root(run) + 1 for run in range(len(rows))], np.int64)
    labels = np.zeros((height, width), np.int64)
    labels[marks] = np.repeat(numbers, ends - begins)
    return labels


def _pieces(labels: Array) -> dict[int, _Piece]:
    """Label -> its piece."""
    rows, columns = np.nonzero(labels)
    found, owner = np.unique(labels[rows, columns], return_inverse=True)
    bounds = []
    for places in (rows, columns):
        least, most = np.full(len(found), labels.size), np.zeros(len(found), np.int64)
        np.minimum.at(least, owner, places)
        np.maximum.at(most, owner, places)
        bounds += [least.tolist(), most.tolist()]
    counts = np.bincount(owner, minlength=len(found)).tolist()
    around = _around(labels)
    top, bottom, left, right = bounds
    return {
        label: _Piece(counts[i], top[i], bottom[i], left[i], right[i], label in around)
        for i, label in enumerate(found.tolist())
    }


def _around(labels: Array) -> set[int]:
    """The labels that hold a corner, or a part of a side, or run along one."""
    around = {int(labels[y, x]) for y in (0, -1) for x in (0, -1)}
    for side in (labels, labels[::-1], labels.T, labels.T[::-1]):
        margin = side[: max(1, round(_MARGIN * len(side)))]
        for label in np.unique(margin).tolist():
            holds = (margin[0] == label).mean()
            if holds > _HELD or (margin == label).any(axis=0).mean() > _ALONG:
                around.add(label)
    return around - {0}
