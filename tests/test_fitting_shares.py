"""Threads that share a batch compute the gradients of the whole batch, the same in each run."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from training.fitting.shares import shares_of, sharing
from training.loop import fit
from training.recipe import Hyperparameters, Split


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Odd(nn.Module):
    """A weight that no output depends on, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.unused = nn.Parameter(torch.ones(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, samples: Tensor) -> Tensor:
        outputs: Tensor = self.layers(samples) * self.fixed
        return outputs


def points(rows: int) -> Split:
    generator = torch.Generator().manual_seed(1)
    return Split(torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator))


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_the_parts_have_the_gradients_of_the_whole_batch(rows: int) -> None:
    network, whole = Odd(), points(rows)

    def error(samples: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(network(samples), targets)

    wanted = error(whole.samples, whole.targets)
    gradients = torch.autograd.grad(wanted, list(network.layers.parameters()))
    with sharing(3) as threads:
        assert threads is not None
        assert torch.get_num_threads() == 1
        loss = threads.backward(network, error, whole.samples, whole.targets)
    assert torch.get_num_threads() == 3
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for weight, gradient in zip(network.layers.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    assert network.unused.grad is None
    assert network.fixed.grad is None


def test_an_error_in_a_part_ends_the_step_and_gives_the_threads_back() -> None:
    def error(samples: Tensor, _: Tensor) -> Tensor:
        if len(samples) == 33:  # of 34, 33 and 33
            raise RuntimeError("no")
        return samples.sum()

    def shared() -> None:
        with sharing(3) as threads:
            assert threads is not None
            threads.backward(Odd(), error, points(100).samples.requires_grad_(), points(100).targets)

    with pytest.raises(RuntimeError, match="no"):
        shared()
    assert torch.get_num_threads() == 3


def fitted(shares: int, *, class_weights: bool = False) -> dict[str, Tensor]:
    network = Odd()
    config = Hyperparameters(epochs=2, batch_size=30, class_weights=class_weights)
    loss = nn.functional.cross_entropy
    fit(
        network, points(100), config, lambda _: None,
        loss=loss, measure=lambda _: {}, samples_per_report=1_000, shares=shares,
    )  # fmt: skip
    return network.state_dict()


def test_a_fit_gives_the_same_weights_in_each_run_and_nearly_those_of_one_thread() -> None:
    first, again, alone = fitted(3), fitted(3), fitted(1)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        torch.testing.assert_close(weight, alone[name], atol=1e-4, rtol=1e-3)


def test_weights_of_classes_belong_to_the_whole_batch() -> None:
    shared, alone = fitted(3, class_weights=True), fitted(1, class_weights=True)
    assert all(torch.equal(weight, alone[name]) for name, weight in shared.items())


def test_a_part_has_enough_samples_and_a_gpu_takes_the_whole_batch() -> None:
    cpu = torch.device("cpu")
    assert [shares_of(size, cpu) for size in (1, 49, 50, 75, 1000)] == [1, 1, 2, 3, 3]
    assert shares_of(1000, torch.device("meta")) == 1
