"""Pictures of flat paper take the short way, others do not; both find the same ink."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.handwriting.flat import distance_from_flat_paper
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


@pytest.mark.parametrize(
    ("paper", "pen"),
    [((255, 255, 255), (0, 0, 0)), ((0, 0, 0), (255, 255, 255)), ((240, 220, 180), (30, 40, 160))],
    ids=["black on white", "white on black", "blue on cream"],
)
def test_the_distance_from_flat_paper_is_that_of_the_channel_that_differs_most(paper: Colour, pen: Colour) -> None:
    colours = planes(page(paper, pen))
    found = distance_from_flat_paper(colours)
    assert found is not None
    assert np.array_equal(found, np.abs(colours.astype(int) - np.array(paper)[:, None, None]).max(axis=0))
    grey = distance_from_flat_paper(colours[:1])
    assert grey is not None
    assert np.array_equal(grey, np.abs(colours[0].astype(int) - paper[0]))


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
    assert distance_from_flat_paper(planes(UNSURE[kind]())) is None
