"""Plain digits that look a little like two, or like struck-through ones, are read; those that are so are refused."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.errors import InvalidInput
from models.handwriting.circles import is_in_touching_circle
from models.handwriting.components import parts_of
from models.handwriting.counts import SeveralDigits, require_one_digit
from models.handwriting.normalise import read_digit
from models.handwriting.strikes import is_struck_through
from models.spec import Array
from tests.marked_pictures import several
from training import data

Stroke = Sequence[tuple[float, float]]


def arc(x: float, y: float, radii: tuple[float, float], start: float, end: float) -> Stroke:
    """An arc around (x, y), clockwise from the right, in degrees."""
    turns = np.radians(np.linspace(start, end, 30))
    return [(x + radii[0] * float(np.cos(turn)), y + radii[1] * float(np.sin(turn))) for turn in turns]


def digits_in(marks: Array) -> int:
    """Count the digits that a refusal names; 1 if there is none."""
    try:
        require_one_digit(parts_of(marks))
    except SeveralDigits as err:
        return int(err.detail.split()[3])
    return 1


def page(strokes: Sequence[Stroke], pen: float) -> Image.Image:
    """Draw strokes, in percent of the page of 240x240 pixels, with a pen of that width, dark on white."""
    picture = Image.new("L", (720, 720), 255)
    for stroke in strokes:
        places = [(x * 7.2, y * 7.2) for x, y in stroke]
        ImageDraw.Draw(picture).line(places, fill=20, width=round(pen * 7.2), joint="curve")
    return picture.resize((240, 240), Image.Resampling.BOX)


def marks(strokes: Sequence[Stroke], pen: float) -> Array:
    found: Array = np.asarray(page(strokes, pen)) < 128
    return found


FIVE_BELOW = [(42, 25), (40, 48), *arc(48, 60, (18, 16), -90, 150)]
PLAIN: Mapping[str, Sequence[Stroke]] = {
    "seven with a crossbar": [[(28, 22), (70, 22), (42, 82)], [(38, 52), (68, 52)]],
    "seven with a long crossbar": [[(28, 22), (70, 22), (44, 82)], [(32, 54), (76, 50)]],
    "four, its bar crosses": [[(42, 20), (28, 58), (76, 58)], [(60, 30), (60, 84)]],
    "four, slanted": [[(45, 20), (28, 60), (74, 58)], [(68, 26), (46, 84)]],
    "four, open": [[(32, 20), (32, 52), (72, 52)], [(64, 20), (64, 84)]],
    "five, its bar apart": [FIVE_BELOW, [(47, 23), (70, 22)]],
    "five, its bar far to the right": [FIVE_BELOW, [(52, 22), (84, 18)]],
    "eight, broken": [arc(50, 36, (14, 15), 100, 400), arc(50, 67, (17, 15), -70, 250)],
    "zero, broken above and below": [arc(50, 50, (18, 28), -85, 85), arc(50, 50, (18, 28), 95, 265)],
    "one with serifs": [[(38, 34), (52, 20), (52, 80)], [(36, 80), (68, 80)]],
    "two, wide": [[*arc(50, 42, (20, 12), 180, 380), (26, 66), (86, 68)]],
    "three and dust": [arc(48, 35, (16, 14), -150, 90), arc(48, 65, (18, 16), -90, 150), [(80, 60), (81, 61)]],
}


@pytest.mark.parametrize("pen", [3, 5, 8])
@pytest.mark.parametrize("digit", PLAIN)
def test_a_plain_digit_is_read(digit: str, pen: int) -> None:
    read_digit(page(PLAIN[digit], pen))


STRUCK: Mapping[str, Stroke] = {
    "level": [(20, 52), (88, 50)],
    "upwards": [(10, 72), (92, 32)],
    "downwards": [(8, 32), (90, 72)],
}


@pytest.mark.parametrize("line", STRUCK)
def test_a_line_through_a_digit_is_refused(line: str) -> None:
    three = [arc(48, 35, (16, 14), -150, 90), arc(48, 65, (18, 16), -90, 150)]
    assert is_struck_through(marks([*three, STRUCK[line]], 4))
    with pytest.raises(InvalidInput, match="a line goes through the digit"):
        read_digit(page([*three, STRUCK[line]], 4))


@pytest.mark.parametrize(
    ("strokes", "count"),
    [
        ([[(30, 30), (30, 70)], [(60, 30), (60, 70)]], 2),
        ([[(50, 10), (60, 10), (52, 40)], [(45, 55), (62, 55), (50, 90)]], 2),
        ([[(20, 30), (20, 70)], arc(45, 50, (10, 20), 0, 360), [(70, 31), (70, 69)]], 3),
        ([[(10, 50), *arc(50, 50, (40, 12), 0, 360)]], 2),  # joined
    ],
    ids=["side by side", "above each other", "three", "wide"],
)
def test_digits_are_counted(strokes: Sequence[Stroke], count: int) -> None:
    assert digits_in(marks(strokes, 4)) == count
    with pytest.raises(InvalidInput, match=f"this looks like {count} digits: send one"):
        read_digit(page(strokes, 4))


def test_the_boxes_of_several_digits_are_places_in_the_picture_that_was_sent() -> None:
    page = Image.new("RGB", (1600, 1200), (90, 140, 220))
    ImageDraw.Draw(page).rectangle((400, 200, 1400, 1000), fill=(255, 255, 255))
    for box in ((1000, 500, 1040, 800), (600, 480, 640, 780)):
        ImageDraw.Draw(page).rectangle(box, fill=(0, 0, 0))
    with pytest.raises(SeveralDigits) as refused:
        read_digit(page)
    text = "this looks like 2 digits: send one of the boxes (left, top, right, bottom) "
    assert refused.value.detail.startswith(text)
    places = [int(place) for place in re.findall(r"\d+", refused.value.detail.removeprefix(text))]
    assert places == pytest.approx([600, 480, 640, 780, 1000, 500, 1040, 800], abs=12)


@pytest.mark.parametrize(("size", "pen"), [(1, 3), (1, 5), (0.85, 4), (0.2, 4)])
@pytest.mark.parametrize("stretched", [1, 0.85])
def test_a_circle_that_touches_the_digit_is_refused(size: float, pen: int, stretched: float) -> None:
    middle = [arc(48, 38, (13, 12), -150, 90), arc(48, 62, (15, 14), -90, 150)]
    circle = arc(49, 50, (29, 29 * stretched), 0, 345)
    drawn = page([*middle, circle], pen)
    with pytest.raises(InvalidInput, match="a circle touches the digit: send the digit without it"):
        read_digit(drawn.resize((round(240 * size), round(240 * size))))


@pytest.mark.parametrize("size", [240, 70, 50])
def test_a_frame_that_touches_the_digit_is_refused(size: int) -> None:
    around = [(30, 20), (70, 20), (70, 80), (30, 80), (30, 19)]
    four = [[(45, 20), (38, 55), (70, 55)], [(62, 30), (62, 80)]]
    with pytest.raises(InvalidInput, match="a frame touches the digit: send the digit without it"):
        read_digit(page([around, *four], 4).resize((size, size)))


def test_a_bar_from_edge_to_edge_is_no_one() -> None:
    bar = Image.new("L", (280, 320), 255)
    ImageDraw.Draw(bar).rectangle((120, 0, 152, 320), fill=0)
    with pytest.raises(InvalidInput, match="a frame touches the digit"):
        read_digit(bar)
    short = Image.new("L", (280, 320), 255)
    ImageDraw.Draw(short).rectangle((130, 60, 150, 260), fill=0)
    read_digit(short)


@pytest.mark.parametrize("pen", [3, 6, 9])
def test_a_zero_is_in_no_circle(pen: int) -> None:
    around, slash = arc(50, 50, (26, 28), 0, 360), [(42, 60), (58, 40)]
    assert not is_in_touching_circle(marks([around], pen))
    assert not is_in_touching_circle(marks([around, slash], pen))
    read_digit(page([around], pen))


def test_small_marks_are_in_no_circle() -> None:
    for shape in ((0, 0), (1, 1), (15, 40), (40, 40)):
        assert not is_in_touching_circle(np.eye(*shape, dtype=bool))


def test_no_marks_are_one_digit_without_a_line() -> None:
    assert not is_struck_through(np.zeros((50, 50), bool))


@pytest.mark.slow
def test_each_reason_refuses_at_most_one_plain_digit_in_a_thousand(mnist_folder: Path) -> None:
    counted = struck = circled = 0
    for number, digit in enumerate(data.mnist(mnist_folder).test.samples[:2000, 0].numpy()):
        size = int(np.random.default_rng(number).integers(60, 280))
        ink = np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)) > 110
        counted += digits_in(ink) > 1
        struck += is_struck_through(ink)
        circled += is_in_touching_circle(ink)
    assert max(counted, struck, circled) <= 2


@pytest.mark.slow
def test_two_digits_of_the_test_split_are_refused(mnist_folder: Path) -> None:
    digits = data.mnist(mnist_folder).test.samples[:150, 0].numpy()
    refused = 0
    for number, digit in enumerate(digits):
        try:
            read_digit(several(2, list(digits), digit, np.random.default_rng(number)))
        except InvalidInput as err:
            refused += err.title == "Several digits"
    assert refused >= 146
