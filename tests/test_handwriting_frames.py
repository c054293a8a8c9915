"""Frames are cut off only if they hold writing; lines are removed only if they cross the picture."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.errors import InvalidInput
from models.handwriting.components import is_one_digit
from models.handwriting.frames import inside_frame
from models.handwriting.lines import without_lines
from models.handwriting.normalise import read_digit
from models.handwriting.paper import of_a_cut
from models.mnist import drawn_seven
from models.spec import Array

SEVEN = drawn_seven()


def drawn(*boxes: tuple[int, int, int, int], width: int = 6) -> Array:
    """A page with boxes, uint8 (3, 200, 200)."""
    page = Image.new("RGB", (200, 200), (255, 255, 255))
    for box in boxes:
        ImageDraw.Draw(page).rectangle(box, outline=(0, 0, 0), width=width)
    return np.asarray(page).transpose(2, 0, 1).copy()


SHAPES = {
    "nothing": drawn(),
    "an empty box": drawn((40, 40, 160, 160)),
    "a square zero": drawn((60, 30, 140, 170), width=20),
    "a square eight": drawn((60, 30, 140, 105), (60, 95, 140, 170), width=12),
    "a bar": drawn((90, 30, 110, 170), width=20),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_holds_no_writing_is_not_cut(shape: str) -> None:
    inside, corner = inside_frame(SHAPES[shape])
    assert inside.shape == (3, 200, 200)
    assert corner == (0, 0)


@pytest.mark.parametrize("width", [1, 2, 5, 9])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_digit_in_frames_is_cut_to_the_inside_of_the_innermost(frames: int, width: int) -> None:
    page = drawn(*((15 * n, 15 * n, 199 - 15 * n, 199 - 15 * n) for n in range(1, frames + 1)), width=width)
    page[:, 70:126, 70:126] -= np.kron(SEVEN, np.ones((2, 2), np.uint8))
    inside, corner = inside_frame(page)
    assert inside.shape[1] == pytest.approx(200 - 30 * frames - 2 * width, abs=4)
    assert inside[:, [0, -1]].min() > 200
    assert corner == pytest.approx((15 * frames + width, 15 * frames + width), abs=2)


def test_lines_across_the_picture_are_removed_and_strokes_kept() -> None:
    stroke = np.zeros((200, 200), bool)
    stroke[40:160, 95:110] = True
    stroke[40:55, 60:140] = True
    ruled = stroke.copy()
    ruled[5::30] = ruled[6::30] = True
    ruled[:, 25::30] = ruled[:, 26::30] = True
    found = without_lines(ruled)
    assert found[stroke].mean() > 0.97
    assert (found & ~stroke).sum() < 40
    assert np.array_equal(without_lines(stroke), stroke)


def test_thin_strokes_that_do_not_cross_the_picture_are_no_lines() -> None:
    marks = np.zeros((200, 200), bool)
    marks[100:102, 40:160] = True
    marks[40:160, 100:102] = True
    assert np.array_equal(without_lines(marks), marks)


def test_the_paper_of_a_cut_is_the_half_with_the_corners() -> None:
    page = np.full((3, 100, 100), 30, np.uint8)
    for y, x in ((0, 0), (0, 70), (70, 0), (70, 70)):
        page[:, y : y + 30, x : x + 30] = 240
    assert of_a_cut(page).ravel().tolist() == [240, 240, 240]


def test_only_marks_like_those_of_the_training_data_are_a_digit() -> None:
    assert is_one_digit(SEVEN)
    assert not is_one_digit(SEVEN // 3)
    assert not is_one_digit(np.full((20, 20), 255, np.uint8))
    scattered = np.zeros((20, 20), np.uint8)
    scattered[::4, ::4] = 255
    assert not is_one_digit(scattered)


@pytest.mark.parametrize("size", [(6, 36), (36, 6), (12, 12), (3, 40), (1, 1), (40, 2)])
def test_small_and_narrow_pictures_are_read_or_show_no_ink(size: tuple[int, int]) -> None:
    for part in range(1, 6):
        page = Image.new("L", size, 255)
        ImageDraw.Draw(page).rectangle((0, 0, size[0] * part // 6, size[1]), fill=0)
        try:
            assert read_digit(page).shape == (28, 28)
        except InvalidInput as err:
            assert err.title == "No ink found"  # noqa: PT017 - either is right


@pytest.mark.parametrize("side", [100, 1279, 1280, 1700])
def test_a_scan_of_one_bit_is_read(side: int) -> None:
    page = Image.fromarray(SEVEN).resize((side, side)).point(lambda level: 255 * (level > 127))
    assert np.abs(read_digit(page.convert("1")).astype(int) - read_digit(page)).max() <= 1
