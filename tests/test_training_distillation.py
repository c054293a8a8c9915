"""Distillation: two fits that are reported, resumed and saved as one run."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch

from models.networks import MnistCNN
from training import mnist
from training.data import digits, limited
from training.distillation import judged, new_teacher, softened_loss
from training.fitting.augment import distort
from training.fitting.resume import State
from training.recipe import Cancelled, Dataset, Progress

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = mnist.Config(
    dataset="digits",
    epochs=2,
    batch_size=50,
    teacher_epochs=2,
    copies=1,
    augment=True,
    elastic=0.6,
    calibrate=True,
)


@cache
def dataset() -> Dataset:
    return limited(digits(), 200)


class Keeping:
    """A Report that keeps the last resume point, and stops the run at a step."""

    def __init__(self, state: State | None = None, stop_at: int = 10**9) -> None:
        self.state = state
        self.told: list[Progress] = []
        self._stop_at = stop_at

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.step >= self._stop_at:
            raise Cancelled

    def saved(self) -> State | None:
        return self.state

    def save(self, state: Callable[[], State]) -> None:
        self.state = copy.deepcopy(state())


def fitted(report: Keeping) -> MnistCNN:
    torch.manual_seed(0)
    network = MnistCNN()
    mnist.fit_network(network, dataset(), CONFIG, report)
    return network


@cache
def whole_run() -> tuple[MnistCNN, Keeping]:
    """A run that nothing cuts off; no test changes it."""
    report = Keeping()
    return fitted(report), report


def same(first: MnistCNN, second: MnistCNN) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_both_fits_are_reported_as_one_run() -> None:
    _, report = whole_run()
    steps = [point.step for point in report.told]
    assert steps == sorted(set(steps))
    assert {point.steps for point in report.told} == {2 * 4 + 2 * 8}
    assert (report.told[-1].step, report.told[-1].epoch, report.told[-1].epochs) == (24, 4, 4)


@pytest.mark.many
@pytest.mark.parametrize("stop_at", [8, 24])
def test_a_run_cut_off_in_either_fit_goes_on_to_the_same_weights(stop_at: int) -> None:
    whole, _ = whole_run()
    cut = Keeping(stop_at=stop_at)
    with pytest.raises(Cancelled):
        fitted(cut)
    assert cut.state is not None
    assert same(whole, fitted(Keeping(cut.state)))


def test_the_teacher_judges_every_sample_and_every_copy() -> None:
    train = dataset().train
    taught = judged(new_teacher(0), train, lambda samples, _: samples, copies=2, seed=0)
    assert taught.samples.shape == (600, 1, 28, 28)
    assert taught.targets.shape == (600, 10)
    assert torch.equal(taught.samples[200:400], train.samples)
    assert torch.equal(*(next(new_teacher(0).parameters()) for _ in range(2)))


def test_the_softened_loss_is_least_where_the_logits_agree_up_to_a_constant() -> None:
    wanted = torch.tensor([[2.0, -1.0, 0.5]])
    loss = softened_loss(3.0)
    assert loss(wanted + 5, wanted).item() == pytest.approx(0, abs=1e-6)
    assert loss(torch.zeros(1, 3), wanted).item() > 0.1


def test_a_distorted_sample_is_still_a_sample_and_another_each_time() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = dataset().train.samples[:20]
    first, second = (distort(samples, generator, elastic=0.6) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == samples.shape
    assert not torch.equal(first, second)
    assert first.float().mean() == pytest.approx(samples.float().mean().item(), rel=0.1)


def test_bfloat16_computation_leaves_float32_weights() -> None:
    network = MnistCNN()
    config = mnist.Config(dataset="digits", mixed="on", epochs=2)
    mnist.fit_network(network, dataset(), config, lambda _: None)
    assert {weights.dtype for weights in network.parameters()} == {torch.float32}
