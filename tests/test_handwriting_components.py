"""Selection of the connected components that are handwriting."""

import numpy as np
import pytest

from models.handwriting.components import labelled, writing
from models.spec import Array


def page(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (200, 160)) -> Array:
    """Marks in boxes of top, bottom, left, right."""
    marks = np.zeros(shape, bool)
    for top, bottom, left, right in boxes:
        marks[top:bottom, left:right] = True
    return marks


STROKE = (60, 120, 70, 80)
TABLE = [(0, 12, 0, 160), (188, 200, 0, 160), (0, 200, 0, 10), (0, 200, 150, 160)]
FRAME = [(4, 6, 4, 156), (194, 196, 4, 156), (4, 196, 4, 6), (4, 196, 154, 156)]


@pytest.mark.parametrize(
    "around",
    [TABLE, FRAME, TABLE[:1], TABLE[2:3], [(0, 30, 0, 40)], [(20, 22, 20, 22)], [(170, 174, 140, 144)]],
    ids=["table", "frame", "table above", "table on the left", "dark corner", "speck", "speck below"],
)
def test_marks_around_the_writing_are_removed(around: list[tuple[int, int, int, int]]) -> None:
    assert np.array_equal(writing(page(STROKE, *around)), page(STROKE))


def test_a_separate_part_of_the_table_is_removed_with_the_table() -> None:
    part = (0, 40, 100, 130)  # at the edge, in no corner, larger than the writing
    assert np.array_equal(writing(page(STROKE, part), page(STROKE, *TABLE, part)), page(STROKE))


def test_a_stroke_in_a_shadow_that_holds_a_corner_stays() -> None:
    shadow = (0, 200, 0, 100)
    assert np.array_equal(writing(page(STROKE), page(STROKE, shadow)), page(STROKE))


@pytest.mark.parametrize(
    "marks",
    [page(), page(STROKE), page(*TABLE), page((0, 200, 0, 160)), page((0, 200, 70, 90))],
    ids=["nothing", "one stroke", "a frame alone", "all", "a stroke from edge to edge"],
)
def test_where_nothing_else_is_left_everything_is_writing(marks: Array) -> None:
    assert np.array_equal(writing(marks), marks)


def test_a_second_stroke_and_a_dot_belong_to_the_writing() -> None:
    marks = page(STROKE, (60, 120, 120, 130), (50, 54, 72, 76))
    assert np.array_equal(writing(marks), marks)


def test_marks_that_touch_have_one_label_and_others_have_another() -> None:
    drawn = [
        "#..#.....",
        ".##..##..",
        "......#.#",
        "###...###",
        "#.#......",
        "###.#....",
    ]
    labels = labelled(np.array([[mark == "#" for mark in row] for row in drawn]))
    assert ((labels > 0) == np.array([[mark == "#" for mark in row] for row in drawn])).all()
    assert len(np.unique(labels)) == 1 + 4
    assert labels[0, 0] == labels[0, 3] == labels[1, 1]
    assert labels[1, 5] == labels[2, 8]
    assert labels[3, 0] == labels[5, 2] == labels[4, 0]
    assert labels[5, 4] not in {labels[3, 0], labels[1, 5], labels[0, 0]}
