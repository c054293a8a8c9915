"""Numbers are read digit by digit; digits in hard shadows, of the whole picture and of a seventh of it are read."""

import io
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from models.errors import InvalidInput
from models.handwriting import segments
from models.handwriting.counts import reading_order
from models.handwriting.normalise import read_digit
from models.handwriting.segments import read_digits
from models.mnist import drawn_seven
from models.spec import Array
from tests.fakes import ROOT
from tests.odd_pictures import Maker
from tests.written_pages import filling, in_shadow, number, shadowed, small_on_pad

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*strokes: Sequence[tuple[int, int]]) -> Array:
    """A digit of straight strokes, uint8 (28, 28)."""
    page = Image.new("L", (224, 224))
    for stroke in strokes:
        ImageDraw.Draw(page).line([(x * 8, y * 8) for x, y in stroke], fill=255, width=20, joint="curve")
    return np.asarray(page.resize((28, 28), Image.Resampling.BOX))


SEVEN = drawn_seven()
ONE = drawn([(14, 5), (14, 23)])
TWO = drawn([(9, 8), (18, 5), (19, 11), (8, 22), (20, 22)])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return state_dict.load("mnist", specs()["mnist"], PRETRAINED / "mnist.pt")[0]


def labels(network: nn.Module, fields: Sequence[Array]) -> list[int]:
    with torch.no_grad():
        found: list[int] = network(torch.tensor(np.stack(fields))[:, None]).argmax(dim=1).tolist()
    return found


@pytest.mark.many
@pytest.mark.parametrize("make", [shadowed, filling, small_on_pad])
def test_a_seven_is_read_in_pictures_that_are_hard_to_read(make: Maker, network: nn.Module) -> None:
    fields = [read_digit(make(SEVEN, np.random.default_rng(seed))) for seed in range(20)]
    assert labels(network, fields).count(7) >= 19


@pytest.mark.many
@pytest.mark.parametrize("size", [(28, 28), (64, 64), (280, 280), (640, 480)])
@pytest.mark.parametrize("light", [(0.4, 0.8), (0.25, 0.4)], ids=["shadow", "deep shadow"])
def test_a_digit_is_read_in_a_hard_shadow(
    light: tuple[float, float], size: tuple[int, int], network: nn.Module
) -> None:
    found = []
    for seed in range(20):
        try:
            field = read_digit(in_shadow(size, light, (SEVEN, TWO)[seed % 2], np.random.default_rng(seed)))
        except InvalidInput:
            found.append(0)
        else:
            found += labels(network, [field])
    assert sum(one == label for one, label in zip(found, [7, 2] * 10, strict=True)) >= 19


def test_each_digit_of_a_number_is_read_in_order_with_its_box(network: nn.Module) -> None:
    page, boxes = number([SEVEN, TWO, ONE, SEVEN])
    found = read_digits(page)
    assert labels(network, [one.entry for one in found if not isinstance(one.entry, InvalidInput)]) == [7, 2, 1, 7]
    for one, box in zip(found, boxes, strict=True):
        assert one.place == pytest.approx(box, abs=3)


def test_rows_are_read_one_after_the_other(network: nn.Module) -> None:
    page, boxes = number([SEVEN, TWO, ONE, TWO, SEVEN, SEVEN], rows=2)
    found = read_digits(page.resize((page.width * 4, page.height * 4), Image.Resampling.BICUBIC))
    assert labels(network, [one.entry for one in found if not isinstance(one.entry, InvalidInput)]) == [
        7,
        2,
        1,
        2,
        7,
        7,
    ]
    for one, box in zip(found, boxes, strict=True):
        assert [place / 4 for place in one.place] == pytest.approx(box, abs=4)


def test_a_digit_that_cannot_be_read_fails_alone() -> None:
    crossed = drawn([(5, 4), (22, 4), (22, 24), (5, 24), (5, 3)], [(5, 4), (22, 24)], [(22, 4), (5, 24)])
    page, _ = number([SEVEN, ONE, crossed])
    entries = [one.entry for one in read_digits(page)]
    assert [isinstance(entry, InvalidInput) for entry in entries] == [False, False, True]


def test_one_digit_is_a_number_of_one_digit() -> None:
    page, _ = number([TWO])
    (only,) = read_digits(page)
    assert not isinstance(only.entry, InvalidInput)
    assert np.array_equal(only.entry, read_digit(page))


def test_a_page_without_ink_and_one_with_too_many_digits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="No ink found"):
        read_digits(Image.new("L", (200, 200), 255))
    monkeypatch.setattr(segments, "MOST_DIGITS", 1)
    with pytest.raises(InvalidInput, match="this looks like 2 digits"):
        read_digits(number([SEVEN, ONE])[0])


def test_boxes_are_in_the_order_of_reading() -> None:
    places = [(0, 40, 50, 70), (4, 44, 0, 20), (60, 100, 30, 50), (64, 90, 0, 20), (2, 38, 90, 99)]
    boxes = [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in places]
    assert reading_order(boxes) == [1, 0, 4, 3, 2]


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


_READ = """
import resource, sys
from models.handwriting.normalise import read_digit
from models.pictures import open_picture
content = sys.stdin.buffer.read()
read_digit(open_picture(bytes.fromhex(sys.argv[1]), 10**6))  # imports
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_digit(open_picture(content, 25_000_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.many
@pytest.mark.parametrize(("kind", "most_mb"), [("JPEG", 40), ("PNG", 75)])
def test_a_picture_of_12_megapixels_takes_little_memory(kind: str, most_mb: int) -> None:
    page = Image.new("RGB", (3000, 4000), (235, 230, 225))
    page.paste((30, 30, 40), (900, 1200), Image.fromarray(SEVEN).resize((1400, 1400), Image.Resampling.BICUBIC))
    small = _encoded(page.resize((300, 400)), kind)
    done = subprocess.run(
        [sys.executable, "-c", _READ, small.hex()],
        input=_encoded(page, kind),
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e6 <= most_mb
