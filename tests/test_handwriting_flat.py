"""Pictures of flat paper take the short way, others do not; both find the same ink."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.handwriting.components import box_of
from models.handwriting.flat import flat_view
from models.handwriting.frames import CONTRAST
from models.mnist import drawn_seven
from models.spec import Array

Colour = tuple[int, int, int]


def page(paper: Colour = (255, 255, 255), pen: Colour = (0, 0, 0), size: tuple[int, int] = (280, 240)) -> Image.Image:
    """A seven in the middle of a page."""
    picture = Image.new("RGB", size, paper)
    mask = Image.fromarray(drawn_seven()).resize((150, 150), Image.Resampling.BICUBIC)
    picture.paste(pen, ((size[0] - 150) // 2, (size[1] - 150) // 2), mask)
    return picture


def planes(picture: Image.Image) -> Array:
    return np.asarray(picture).transpose(2, 0, 1).copy()


PAPERS = {
    "black on white": ((255, 255, 255), (0, 0, 0)),
    "white on black": ((0, 0, 0), (255, 255, 255)),
    "blue on cream": ((240, 220, 180), (30, 40, 160)),
}


@pytest.mark.parametrize("kind", PAPERS)
def test_the_distance_from_flat_paper_is_that_of_the_channel_that_differs_most(kind: str) -> None:
    paper, pen = PAPERS[kind]
    colours = planes(page(paper, pen))
    differ = np.abs(colours.astype(int) - np.array(paper)[:, None, None]).max(axis=0)
    for view, expected in (
        (flat_view(colours), differ),
        (flat_view(colours[:1]), np.abs(colours[0].astype(int) - paper[0])),
    ):
        assert view is not None
        assert view.flat
        box = box_of(expected > CONTRAST, margin=4)
        assert view.corner == (box[0].start, box[1].start)
        assert np.array_equal(view.near, np.asarray(Image.fromarray(expected.astype(np.uint8)[box]).reduce(view.scale)))
        assert view.sides == (240 / view.scale, 280 / view.scale)


@pytest.mark.parametrize(("side", "scale"), [(100, 1), (180, 2), (260, 4)])
def test_large_marks_are_reduced_and_small_ones_are_not(side: int, scale: int) -> None:
    picture = Image.new("L", (320, 320), 255)
    ImageDraw.Draw(picture).ellipse([160 - side // 2, 160 - side // 2, 160 + side // 2, 160 + side // 2], width=6)
    view = flat_view(np.asarray(picture)[None])
    assert view is not None
    assert view.scale == scale
    assert max(view.near.shape) < 128
    assert view.near.max() > 200


def test_a_page_without_marks_is_looked_at_as_a_whole() -> None:
    view = flat_view(np.full((1, 100, 120), 200, np.uint8))
    assert view is not None
    assert view.near.shape == (100, 120)


def lit(picture: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(picture) * np.linspace(0.8, 1, picture.width)[None, :, None]).astype(np.uint8))


def with_box(box: tuple[int, int, int, int], fill: Colour | None, picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).rectangle(box, fill=fill, outline=(0, 0, 0), width=3)
    return picture


UNSURE: dict[str, Callable[[], Image.Image]] = {
    "uneven light": lambda: lit(page()),
    "dark corner": lambda: with_box((0, 0, 40, 40), (60, 60, 60), page()),
    "filled square": lambda: with_box((20, 20, 120, 120), (90, 90, 90), page()),
    "frame": lambda: with_box((30, 20, 250, 220), None, page()),
    "lighter and darker marks": lambda: with_box((20, 20, 40, 40), (255, 255, 255), page((128, 128, 128))),
    "small": lambda: page(size=(79, 200)),
}


@pytest.mark.parametrize("kind", UNSURE)
def test_other_pictures_are_left_to_the_long_way(kind: str) -> None:
    assert flat_view(planes(UNSURE[kind]())) is None
