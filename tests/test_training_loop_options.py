"""Class weights, early stopping and the learning rate finder of the common loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from training.fitting.early_stopping import EarlyStopping, Watch, Watched
from training.fitting.lr_finder import found_lr
from training.fitting.resume import ResumePoints
from training.loop import fit, weighted
from training.recipe import Cancelled, Hyperparameters, Progress, Report, Split, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = Split(torch.arange(20.0)[:, None] / 20, torch.arange(20.0)[:, None] / 5)
MSE = Watch("mse", higher_is_better=False)


def unweighted(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss without weights."""
    return cross_entropy(outputs, targets)


def line() -> nn.Linear:
    network = nn.Linear(1, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def fitted(
    network: nn.Module,
    figures: Callable[[int], float],
    report_of: Callable[[Report], Report] = lambda told: told,
    watch: Watch | None = MSE,
    **values: Any,
) -> int:
    """Fit with a metric that is made up: a function of the number of measurements. Returns how many epochs ran."""
    seen: list[int] = []
    epochs: list[int] = []

    def measure(_: nn.Module) -> dict[str, float]:
        seen.append(1)
        return {"mse": figures(len(seen))}

    def told(progress: Progress) -> None:
        epochs.append(progress.epoch)

    config = Hyperparameters(**{"optimizer": "sgd", "lr": 0.1, "batch_size": 20, **values})
    report = Watched(report_of(told), watch)
    fit(network, POINTS, config, report, loss=mse_loss, measure=measure, samples_per_report=len(POINTS))
    return epochs[-1]


def test_a_fit_ends_after_patience_epochs_without_improvement_with_the_best_weights() -> None:
    network, reference = line(), line()
    # Each epoch is measured twice: for its report, and for the stop. The third epoch is the best one.
    assert fitted(network, lambda count: abs(count - 6.0), epochs=50, patience=4) == 7
    fitted(reference, lambda _: 0.0, epochs=3)
    assert torch.equal(network.weight, reference.weight)
    assert fitted(line(), lambda count: 1.0 / count, epochs=9, patience=1) == 9
    assert fitted(line(), float, epochs=9) == 9  # no patience


def test_a_metric_of_which_more_is_better_is_watched_as_such() -> None:
    watch = Watch("mse", higher_is_better=True)
    assert fitted(line(), float, watch=watch, epochs=9, patience=1) == 9
    assert fitted(line(), lambda count: -float(count), watch=watch, epochs=9, patience=1) == 2


def test_patience_without_its_metric_is_an_error() -> None:
    with pytest.raises(TrainingError, match="patience watches accuracy, but the recipe's fit measures only mse"):
        fitted(line(), float, watch=Watch("accuracy", higher_is_better=True), epochs=2, patience=1)
    with pytest.raises(TrainingError, match="pass on the report that the recipe's fit gets"):
        fitted(line(), float, watch=None, epochs=2, patience=1)


def test_a_resumed_fit_goes_on_waiting_and_with_the_same_learning_rate(tmp_path: Path) -> None:
    def points(attempt: int, told: Report, stop_at: int) -> ResumePoints:
        def tell(progress: Progress) -> None:
            told(progress)
            if progress.epoch == stop_at:
                raise Cancelled

        return ResumePoints(lambda number: tmp_path / f"{number}.pt", attempt, tell, every_s=0)

    values: dict[str, Any] = {"epochs": 30, "patience": 3, "lr_finder": True}
    whole, resumed = line(), line()
    assert fitted(whole, lambda _: 1.0, **values) == 4  # the first epoch is the best one
    with pytest.raises(Cancelled):
        fitted(line(), lambda _: 1.0, lambda told: points(1, told, 3), **values)
    assert fitted(resumed, lambda _: 1.0, lambda told: points(2, told, 0), **values) == 4
    assert torch.equal(resumed.weight, whole.weight)


def test_rare_labels_weigh_as_much_as_frequent_ones() -> None:
    targets = torch.tensor([0] * 90 + [1] * 10)
    loss = weighted(cross_entropy, targets)
    outputs = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    by_label = [cross_entropy(outputs[targets == label], targets[targets == label]) for label in (0, 1)]
    assert loss(outputs, targets).item() == pytest.approx(torch.stack(by_label).mean().item(), rel=1e-5)
    samples = Split(torch.cat([torch.zeros(90, 1), torch.ones(10, 1)]), targets)
    answers = []
    for class_weights in (False, True):
        network = nn.Linear(1, 2)
        nn.init.zeros_(network.weight)
        nn.init.zeros_(network.bias)
        config = Hyperparameters(
            epochs=3, batch_size=100, optimizer="sgd", lr=0.3, class_weights=class_weights, shuffle=False
        )
        fit(
            network, samples, config, lambda _: None, loss=cross_entropy, measure=lambda _: {}, samples_per_report=100
        )  # fmt: skip
        answers.append(int(network(torch.ones(1, 1)).argmax()))
    assert answers == [0, 1]


@pytest.mark.parametrize("targets", [torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)], ids=["values", "labels"])
def test_class_weights_of_what_has_none_are_refused(targets: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match="class_weights needs labels, and a loss with a parameter `weight`"):
        weighted(unweighted, targets)


def test_the_finder_chooses_a_rate_that_trains_and_changes_nothing_else() -> None:
    network, before = line(), torch.get_rng_state()
    chosen = []

    def step(tried: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
        loss = mse_loss(tried(batch[0]), batch[1])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    batch = (POINTS.samples, POINTS.targets)
    chosen.append(found_lr(network, lambda net: torch.optim.SGD(net.parameters()), lambda: batch, step))
    assert 0.001 < chosen[0] < 1
    assert torch.equal(before, torch.get_rng_state())
    assert not network.weight.any()
    with pytest.raises(TrainingError, match="no learning rate gives a finite loss"):
        found_lr(network, lambda net: torch.optim.SGD(net.parameters()), lambda: batch, lambda *_: float("nan"))


def test_a_fit_with_the_finder_does_not_use_lr() -> None:
    first, second, plain = line(), line(), line()
    fitted(first, float, epochs=2, lr=1e-9, lr_finder=True)
    fitted(second, float, epochs=2, lr=50.0, lr_finder=True)
    fitted(plain, float, epochs=2, lr=1e-9)
    assert torch.equal(first.weight, second.weight)
    assert first.weight.abs().item() > 1_000 * plain.weight.abs().item()


def test_without_patience_nothing_is_measured_or_kept() -> None:
    stopping = EarlyStopping(0, None)
    stopping.see(line(), lambda _: pytest.fail("measured"))
    assert not stopping.is_over
    assert stopping.state() == {}
