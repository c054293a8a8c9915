"""Pictures that are easy to read wrong are read right, refused or answered with a low probability."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from models.errors import InvalidInput
from models.handwriting.normalise import read_digit
from models.mnist import drawn_seven
from models.spec import Array
from tests.odd_pictures import DIGITS, KINDS, NO_DIGITS, Maker
from training import data

pytestmark = pytest.mark.usefixtures("one_thread")
SURE = 0.9


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return state_dict.load("mnist", specs()["mnist"], PRETRAINED / "mnist.pt")[0]


def answers(maker: Maker, network: nn.Module, digits: Iterable[Array]) -> list[tuple[int, bool] | None]:
    """Label and whether it is sure, of each digit's picture; None if it was refused."""
    found: list[tuple[int, bool] | None] = []
    for number, digit in enumerate(digits):
        try:
            field = read_digit(maker(digit, np.random.default_rng(number)))
        except InvalidInput:
            found.append(None)
            continue
        with torch.no_grad():
            probabilities = torch.softmax(network(torch.tensor(field)[None, None]), dim=1)[0]
        found.append((int(probabilities.argmax()), float(probabilities.max()) > SURE))
    return found


@pytest.mark.many
@pytest.mark.parametrize("kind", DIGITS)
def test_a_seven_is_read_in_every_odd_picture(kind: str, network: nn.Module) -> None:
    found = answers(KINDS[kind], network, [drawn_seven()] * 6)
    assert sum(answer is not None and answer[0] == 7 for answer in found) >= 5
    assert not [answer for answer in found if answer and answer[0] != 7 and answer[1]]


@pytest.mark.parametrize("kind", NO_DIGITS)
def test_a_picture_without_a_digit_is_refused_or_answered_with_a_low_probability(kind: str, network: nn.Module) -> None:
    found = answers(KINDS[kind], network, [drawn_seven()] * 15)
    assert sum(answer is not None and answer[1] for answer in found) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", DIGITS)
def test_digits_of_the_test_split_are_read_right_or_refused(kind: str, network: nn.Module, mnist_folder: Path) -> None:
    test = data.mnist(mnist_folder).test
    digits, labels = test.samples[:40, 0].numpy(), test.targets[:40].tolist()
    found = answers(KINDS[kind], network, digits)
    wrong = [answer for answer, label in zip(found, labels, strict=True) if answer and answer[0] != label]
    assert not [answer for answer in wrong if answer[1]]  # sure and wrong
    assert sum(answer is not None and answer[0] == label for answer, label in zip(found, labels, strict=True)) >= 36
