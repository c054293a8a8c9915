"""Pictures whose marks are not one plain digit are refused by a small network; plain digits and ruled paper are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from models.errors import InvalidInput
from models.handwriting import normalise, plainness
from models.handwriting.normalise import read_digit, to_field
from models.handwriting.plainness import Looks, looks, strangeness
from models.mnist import drawn_seven
from training import data
from training.plainness import __main__ as command
from training.plainness.distractors import FAMILIES, plain, ruled
from training.plainness.network import numbers_of, untrained
from training.recipe import Dataset, Split, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
SEVENS = drawn_seven()[None]
REFUSED = "the marks in the picture do not look like one digit: send one digit on plain paper"


def page(size: int = 240) -> Image.Image:
    """A drawn seven, dark on white."""
    return Image.fromarray(255 - drawn_seven()).resize((size, size), Image.Resampling.BICUBIC)


def joined() -> Image.Image:
    """Two sevens that touch each other."""
    sevens = [Image.new("L", (400, 280), 255) for _ in range(2)]
    for number, one in enumerate(sevens):
        one.paste(page(), (100 * number, 20))
    return Image.fromarray(np.minimum(*(np.asarray(one) for one in sevens)))


def scribble() -> Image.Image:
    """A zigzag line."""
    picture = Image.new("L", (300, 300), 255)
    places = [(40, 40), (250, 80), (60, 120), (250, 160), (60, 200), (240, 240), (60, 270)]
    ImageDraw.Draw(picture).line(places, 0, 10)
    return picture


def checks() -> Image.Image:
    """A chequered picture."""
    return Image.fromarray(np.kron(np.indices((5, 5)).sum(axis=0) % 2, np.full((40, 40), 255)).astype(np.uint8))


@pytest.mark.parametrize("maker", [joined, scribble, checks], ids=["joined", "scribble", "checks"])
def test_marks_that_are_no_plain_digit_are_refused_with_the_way_out(maker: Callable[[], Image.Image]) -> None:
    with pytest.raises(InvalidInput, match=REFUSED):
        read_digit(maker())


def test_a_plain_digit_is_read() -> None:
    for size in (40, 90, 240, 700):
        assert looks(read_digit(page(size))).at_all


def test_only_pictures_that_are_normalised_and_not_ruled_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalise, "looks", lambda _: Looks(at_all=False, surely=False))
    read_digit(Image.fromarray(drawn_seven()))
    with pytest.raises(InvalidInput, match=REFUSED):
        read_digit(page())
    paper = page(300)
    for y in range(20, 300, 40):
        ImageDraw.Draw(paper).line((0, y, 300, y), 150, 2)
    read_digit(paper)


def test_numpy_scores_as_the_network_that_was_trained() -> None:
    torch.manual_seed(0)
    network = untrained()
    fields = command.fields(plain, SEVENS, 5, [0])
    numbers = numbers_of(network)
    assert sum(values.nbytes for values in numbers.values()) < 150_000
    with torch.no_grad():
        expected = network(torch.from_numpy(fields)[:, None].float() / 255)[:, 0].numpy()
    assert command.scores(fields, numbers) == pytest.approx(expected, abs=1e-3)


def test_the_shipped_numbers_are_small_and_finite() -> None:
    assert plainness.NUMBERS.stat().st_size < 150_000
    with np.load(plainness.NUMBERS, allow_pickle=False) as numbers:
        assert all(numbers[name].dtype == np.float16 and np.isfinite(numbers[name]).all() for name in numbers.files)
        exact = {name: numbers[name].astype(np.float32) for name in numbers.files}
    assert strangeness(drawn_seven(), exact) < float(exact["threshold"])


@pytest.mark.many
@pytest.mark.parametrize("family", FAMILIES)
def test_a_seven_with_other_marks_is_refused(family: str) -> None:
    fields = command.fields(FAMILIES[family], SEVENS, 60, [1])
    assert sum(not looks(field).at_all for field in fields) >= (15 if family == "line" else 30)


def test_a_plain_seven_is_not_refused() -> None:
    assert all(looks(field).at_all for field in command.fields(plain, SEVENS, 100, [1]))
    assert sum(looks(field).at_all for field in command.fields(ruled, SEVENS, 100, [1])) >= 97


def few_digits(_: Path) -> Dataset:
    """As many sevens as MNIST has digits, without memory for each."""
    samples = torch.tensor(SEVENS)[None].expand(55_000, 1, 28, 28)
    split = Split(samples, torch.zeros(55_000, dtype=torch.int64))
    return Dataset(name="mnist", train=split, validation=split, test=split)


@pytest.mark.slow
def test_the_command_writes_the_same_numbers_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "mnist", few_digits)
    for name, count in (("_EACH", 40), ("_PLAIN", 250), ("_RULED", 30), ("_EPOCHS", 1), ("_SHOWN", 3)):
        monkeypatch.setattr(command, name, count)
    for name in ("one.npz", "other.npz"):
        assert command.main(["--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    assert "digits together" in capsys.readouterr().out


def test_the_command_says_that_the_files_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Path) -> Dataset:
        raise TrainingError("no MNIST files")

    monkeypatch.setattr(data, "mnist", missing)
    assert command.main(["--output", str(tmp_path / "numbers.npz")]) == 1
    assert capsys.readouterr().err == "python -m training.plainness: no MNIST files\n"


@pytest.mark.slow
def test_at_most_one_plain_digit_in_five_hundred_is_refused(mnist_folder: Path) -> None:
    digits = data.mnist(mnist_folder).validation.samples[:, 0].numpy()
    refused = 0
    for digit in digits:
        size = (160, 160)
        ink = np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC)).astype(np.float32) / 255
        refused += not looks(to_field(ink)).at_all
    assert refused <= len(digits) / 500
