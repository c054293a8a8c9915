"""The epoch loop: order, batches, rules, reports."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import mse_loss

from tests.fakes import ROOT
from training.data import digits
from training.fitting.augment import affine
from training.fitting.batches import Batch, batches
from training.fitting.optimizers import lr_factor, make_optimizer
from training.loop import fit
from training.metrics import classification, outputs, regression
from training.recipe import Cancelled, Hyperparameters, Progress, Split, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
_EACH_OPTIMIZER = """
import sys
import torch
from training.fitting.optimizers import make_optimizer
from training.recipe import Hyperparameters
for name in "sgd momentum rmsprop adam adamw".split():
    network = torch.nn.Linear(1, 1)
    optimizer = make_optimizer(network, Hyperparameters(optimizer=name))
    network(torch.ones(1, 1)).backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
POINTS = Split(torch.arange(10.0)[:, None] / 10, torch.arange(10.0)[:, None] / 5)


def line(slope: float = 0.0) -> nn.Linear:
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, slope)
    nn.init.zeros_(network.bias)
    return network


def fitted(network: nn.Module, *, samples_per_report: int = 10, **values: Any) -> list[Progress]:
    told: list[Progress] = []
    config = Hyperparameters(**{"optimizer": "sgd", "lr": 0.1, **values})
    fit(
        network,
        POINTS,
        config,
        told.append,
        loss=mse_loss,
        measure=lambda network: regression(network, POINTS),
        samples_per_report=samples_per_report,
    )
    return told


def epoch(seed: int, **options: Any) -> list[Batch]:
    chosen = {"batch_size": 3, "shuffle": True, **options}
    return list(batches(POINTS, generator=torch.Generator().manual_seed(seed), **chosen))


def values_of(drawn: list[Batch]) -> list[float]:
    return [value for samples, _ in drawn for value in samples.flatten().tolist()]


def test_an_epoch_holds_every_sample_once_with_its_own_target() -> None:
    drawn = epoch(0)
    assert [len(samples) for samples, _ in drawn] == [3, 3, 3, 1]
    assert sorted(values_of(drawn)) == POINTS.samples.flatten().tolist()
    assert all(torch.equal(targets, samples * 2) for samples, targets in drawn)


def test_the_order_is_the_seed_s_and_without_shuffle_that_of_the_data() -> None:
    assert values_of(epoch(1)) == values_of(epoch(1)) != values_of(epoch(2))
    assert values_of(epoch(1, shuffle=False)) == POINTS.samples.flatten().tolist()


def test_each_epoch_is_shuffled_differently() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        values_of(list(batches(POINTS, batch_size=10, shuffle=True, generator=generator))) for _ in range(2)
    )
    assert first != second


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_worker_processes_prepare_the_same_batches() -> None:
    train = digits().train
    prepared = [
        list(
            batches(
                Split(train.samples[:60], train.targets[:60]),
                batch_size=25,
                shuffle=True,
                generator=torch.Generator().manual_seed(3),
                augment=affine,
                num_workers=count,
            ),
        )
        for count in (0, 2)
    ]
    for (samples, targets), (their_samples, their_targets) in zip(*prepared, strict=True):
        assert torch.equal(samples, their_samples)
        assert torch.equal(targets, their_targets)


def test_augmented_digits_are_moved_a_little_and_keep_their_form() -> None:
    samples = digits().train.samples[:200]
    moved = affine(samples, torch.Generator().manual_seed(0))
    assert (moved.shape, moved.dtype) == (samples.shape, samples.dtype)
    assert torch.equal(moved, affine(samples, torch.Generator().manual_seed(0)))
    assert (moved != samples).flatten(1).any(dim=1).all()
    before, after = centres(samples), centres(moved)
    assert (before - after).abs().max() < 3
    assert (before - after).abs().mean() > 0.5
    assert moved.float().mean().item() == pytest.approx(samples.float().mean().item(), rel=0.05)


def centres(samples: Tensor) -> Tensor:
    """Centre of mass of each picture, in pixels, (N, 2)."""
    ink = samples[:, 0].float()
    places = torch.arange(28.0)
    across, down = (ink.sum(dim=axis) @ places for axis in (1, 2))
    return torch.stack([across, down], dim=1) / ink.sum(dim=(1, 2))[:, None]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cooldown", [1, 1, 1, 0.5]),
        ("linear", [1, 0.75, 0.5, 0.1]),
        ("cosine", [1, 0.854, 0.5, 0.024]),
        ("one_cycle", [0.04, 0.936, 0.812, 0.05]),
    ],
)
def test_each_schedule_runs_its_course(schedule: Any, factors: list[float]) -> None:
    assert [lr_factor(schedule, done) for done in (0, 0.25, 0.5, 0.9)] == pytest.approx(factors, abs=2e-3)


@pytest.mark.parametrize("schedule", ["constant", "cooldown", "linear", "cosine", "one_cycle"])
def test_no_schedule_leaves_the_range_of_the_learning_rate(schedule: Any) -> None:
    factors = [lr_factor(schedule, step / 1_000) for step in range(1_000)]
    assert min(factors) > 0
    assert max(factors) == pytest.approx(1, abs=1e-4)


def test_the_schedule_moves_the_weights() -> None:
    network = line()
    fitted(network, epochs=1, batch_size=10, lr=0.1)
    first_step = network.weight.item()
    network = line()
    fitted(network, epochs=1, batch_size=10, lr=0.1, schedule="one_cycle")
    assert network.weight.item() == pytest.approx(first_step / 25, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", optim.SGD, {"momentum": 0}),
        ("momentum", optim.SGD, {"momentum": 0.8}),
        ("rmsprop", optim.RMSprop, {"alpha": 0.7}),
        ("adam", optim.Adam, {"betas": (0.5, 0.6), "decoupled_weight_decay": False}),
        ("adamw", optim.AdamW, {"betas": (0.5, 0.6)}),
    ],
)
def test_each_optimizer_takes_its_hyperparameters(name: Any, kind: type, settings: dict[str, Any]) -> None:
    config = Hyperparameters(optimizer=name, lr=0.3, weight_decay=0.2, momentum=0.8, alpha=0.7, betas=(0.5, 0.6))
    optimizer = make_optimizer(line(), config)
    assert (type(optimizer).__mro__[1], type(optimizer).__name__) == (kind, kind.__name__)
    expected = {"lr": 0.3, "weight_decay": 0.2, **settings}
    assert {key: optimizer.param_groups[0][key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("momentum", lambda weights: optim.SGD(weights, lr=0.1, momentum=0.9, fused=True)),
        ("rmsprop", lambda weights: optim.RMSprop(weights, lr=0.1)),
        ("adamw", lambda weights: optim.AdamW(weights, lr=0.1, betas=(0.9, 0.999), weight_decay=0, fused=True)),
    ],
    ids=["momentum", "rmsprop", "adamw"],
)
def test_an_optimizer_computes_the_same_bits_as_pytorchs_own(name: Any, plain: Any) -> None:
    config = Hyperparameters(optimizer=name, lr=0.1, momentum=0.9, alpha=0.99, weight_decay=0)
    found = []
    for make in (lambda network: make_optimizer(network, config), lambda network: plain(network.parameters())):
        network = line(0.7)
        optimizer = make(network)
        for step in range(6):
            optimizer.zero_grad()
            mse_loss(network(POINTS.samples), POINTS.targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step == 3:  # as a run that goes on from a resume point
                state = optimizer.state_dict()
                optimizer = make(network)
                optimizer.load_state_dict(state)
        found.append([network.weight.item(), network.bias.item()])
    assert found[0] == found[1]


@pytest.mark.slow
def test_no_optimizer_loads_the_compiler() -> None:
    """It takes more than a second."""
    done = subprocess.run([sys.executable, "-c", _EACH_OPTIMIZER], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reports_come_at_their_distance_and_at_the_end() -> None:
    steps = [point.step for point in fitted(line(), epochs=7, batch_size=5, samples_per_report=20)]
    assert steps == [4, 8, 12, 14]


def test_reports_are_never_more_than_fifty_steps_apart() -> None:
    steps = [point.step for point in fitted(line(), epochs=12, batch_size=1, samples_per_report=1_000)]
    assert steps == [50, 100, 120]


def test_reports_come_every_step_where_a_batch_is_large() -> None:
    assert [point.step for point in fitted(line(), epochs=3, batch_size=64)] == [1, 2, 3]


def test_the_reported_loss_is_the_mean_since_the_last_report() -> None:
    each = fitted(line(), epochs=4, batch_size=10, samples_per_report=10)
    pairs = fitted(line(), epochs=4, batch_size=10, samples_per_report=20)
    assert [point.loss for point in pairs] == pytest.approx(
        [(each[0].loss + each[1].loss) / 2, (each[2].loss + each[3].loss) / 2],
    )
    assert each[0].loss == pytest.approx(POINTS.targets.square().mean().item())


def test_the_reported_figures_are_those_of_the_network_as_it_is_then() -> None:
    network = line()
    assert fitted(network, epochs=3, batch_size=10)[-1].metrics == regression(network, POINTS)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_lower() -> None:
    with pytest.raises(TrainingError, match=r"no longer finite at step \d+: lower lr \(100\)"):
        fitted(line(), epochs=1_000, batch_size=10, lr=100)


def test_cancelling_stops_within_the_step() -> None:
    network, told = line(), []

    def cancel(progress: Progress) -> None:
        told.append(network.weight.item())
        if progress.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit(
            network,
            POINTS,
            Hyperparameters(epochs=9, batch_size=10, optimizer="sgd", lr=0.1),
            cancel,
            loss=mse_loss,
            measure=lambda _: {},
            samples_per_report=1,
        )
    assert len(told) == 3
    assert network.weight.item() == told[-1]


def test_measuring_leaves_the_network_in_the_mode_it_was_in() -> None:
    seen: list[bool] = []
    network = line()
    network.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    for training in (True, False):
        network.train(training)
        outputs(network, POINTS.samples)
        assert network.training is training
    assert seen == [False, False]


def test_accuracy_and_loss_are_what_they_say() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    figures = classification(nn.Identity(), Split(logits, torch.tensor([0, 0, 1, 1])))
    assert figures["accuracy"] == 0.75
    wrong_by = [math.log1p(math.exp(-2)), math.log(2), math.log1p(math.exp(-3)), math.log1p(math.e)]
    assert figures["loss"] == pytest.approx(sum(wrong_by) / 4, rel=1e-5)


def test_the_mean_squared_error_is_what_it_says() -> None:
    assert regression(line(slope=2), POINTS) == {"mse": pytest.approx(0, abs=1e-12)}
    assert regression(line(), Split(torch.ones(4, 1), torch.full((4, 1), 3.0))) == {"mse": 9.0}
