"""The training loop over epochs and batches. A recipe may use it or bring another one.

All randomness comes from one generator seeded with `config.seed`: the same seed gives bit-identical weights on the same
machine with the same number of threads, even if other code in the process draws random numbers.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import chain, count
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from training.fitting.batches import Augment, Batch, batches
from training.fitting.early_stopping import EarlyStopping, Watching
from training.fitting.group import Group, group_of
from training.fitting.lr_finder import found_lr
from training.fitting.optimizers import lr_factor, make_optimizer
from training.fitting.resume import Resumable, State
from training.fitting.shares import Shares, sharing
from training.recipe import Hyperparameters, Progress, Report, Split, TrainingError
from training.rows import call

log = logging.getLogger(__name__)
Loss = Callable[[Any, Tensor], Tensor]  # outputs, targets -> the mean over the batch
_SEEDS_APART = 1_000_003  # random seeds of two processes
_MOST_STEPS = 50  # between two reports, so that a run can be cancelled quickly


@dataclass(kw_only=True)
class Fitting:
    """The mutable state of a run, from which it can be resumed exactly.

    The learning rate is a function of `step` and needs no state. `losses` are those since the last report.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(0, None))
    lr: float = 0.0

    def state(self) -> State:
        """Return the state for a resume point."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "default_generator": torch.get_rng_state(),  # for networks that use the global generator, e.g. dropout
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "stopping": self.stopping.state(),
            "lr": self.lr,
        }

    def go_on_from(self, state: State) -> None:
        """Restore what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["default_generator"])
        self.epoch, self.step, self.losses = state["epoch"], state["step"], list(state["losses"])
        self.stopping.go_on_from(state.get("stopping", {}))
        self.lr = state.get("lr", self.lr)


def fit(
    network: nn.Module,
    train: Split,
    config: Hyperparameters,
    report: Report,
    *,
    loss: Loss,
    measure: Callable[[nn.Module], Mapping[str, float]],
    samples_per_report: int,
    augment: Augment | None = None,
    num_workers: int = 0,
    mixed: bool = False,
    shares: int = 1,
) -> None:
    """Train the network in place. With `mixed` it computes in bfloat16; its weights and the loss stay float32.

    `shares` threads compute a part of each batch (see `fitting.shares`): for a CPU, a network that computes each sample
    by itself, without batch normalisation, and a loss that is a plain mean over the samples.

    `report` is called with the mean loss since the last report and the metrics from `measure`: every
    `samples_per_report` samples, at least every 50 steps, and after the last step. Its exceptions end the run.
    If `report` is Grouped, the run has several processes with `config.batch_size` samples each in a batch: each takes
    its part of the batches, all take the same steps, and rank 0 reports and saves. Raises PeerLost.
    If `report` is Resumable, the run starts from its saved state, if any, and saves its state after each epoch.
    With `config.patience` it ends early, with the weights of the best epoch, if `report` knows which metric to watch.
    Raises TrainingError if the loss is no longer finite.
    """
    loss = weighted(loss, train.targets) if config.class_weights else loss
    fitting = Fitting(
        network=network.train(),
        optimizer=make_optimizer(network, config),
        generator=torch.Generator().manual_seed(config.seed),
        stopping=EarlyStopping(config.patience, report.watch if isinstance(report, Watching) else None),
        lr=config.lr,
    )
    group = group_of(report)
    steps = steps_of(len(train), config, report)
    steps_per_report = min(_MOST_STEPS, math.ceil(samples_per_report / (config.batch_size * _size(group))))
    _begin(fitting, train, config, loss, report, mixed=mixed)
    with sharing(1 if group is not None or config.class_weights else shares) as threads:
        while fitting.epoch < config.epochs and not fitting.stopping.is_over:
            fitting.epoch += 1
            for batch in batches(
                train, batch_size=config.batch_size, shuffle=config.shuffle, generator=fitting.generator,
                augment=augment, num_workers=num_workers, group=group,
            ):  # fmt: skip
                lr = fitting.lr * lr_factor(config.schedule, fitting.step / steps)
                _step(fitting, batch, loss, lr=lr, mixed=mixed, group=group, threads=threads)
                if fitting.step % steps_per_report == 0 or fitting.step == steps:
                    if _decides(group):
                        report(_progress(fitting, config.epochs, steps, measure(network)))
                    fitting.losses.clear()
            _end_epoch(fitting, report, measure)
    fitting.stopping.restore(network)
    if group is not None:
        group.copy(network)


def _size(group: Group | None) -> int:
    return 1 if group is None else group.size


def _decides(group: Group | None) -> bool:
    return group is None or group.rank == 0


def _begin(fitting: Fitting, train: Split, config: Hyperparameters, loss: Loss, report: Report, *, mixed: bool) -> None:
    """Restore the saved state, if there is one; otherwise choose the learning rate."""
    group = group_of(report)
    saved = report.saved() if isinstance(report, Resumable) else None
    if group is not None:
        group.used = True
        saved = group.shared(saved)
    if saved is not None:
        fitting.go_on_from(saved)
    elif config.lr_finder:
        find = partial(_found_lr, fitting, train, config, loss, mixed=mixed)
        fitting.lr = find() if group is None else group.agreed(find)
    if group is not None:
        group.copy(fitting.network)
        if group.rank:  # other dropout than at rank 0
            torch.default_generator.manual_seed(config.seed + _SEEDS_APART * group.rank + fitting.step)


def _end_epoch(fitting: Fitting, report: Report, measure: Callable[[nn.Module], Mapping[str, float]]) -> None:
    """Decide about early stopping, and save a resume point."""
    group = group_of(report)
    if _decides(group):
        fitting.stopping.see(fitting.network, measure)
        if isinstance(report, Resumable):
            report.save(fitting.state)
    if group is not None:
        fitting.stopping.follow(over=bool(group.agreed(lambda: fitting.stopping.is_over)))


def _found_lr(fitting: Fitting, train: Split, config: Hyperparameters, loss: Loss, *, mixed: bool) -> float:
    """Try learning rates on a copy of the network, with batches of the training split in random order."""
    generator = torch.Generator().manual_seed(config.seed)
    stream = chain.from_iterable(
        batches(train, batch_size=config.batch_size, shuffle=True, generator=generator) for _ in count()
    )

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
        return _optimized(network, optimizer, batch, loss, mixed=mixed)

    found = found_lr(fitting.network, lambda network: make_optimizer(network, config), lambda: next(stream), step)
    log.info("learning rate found", extra={"lr": found})
    return found


def weighted(loss: Loss, targets: Tensor) -> Loss:
    """Return the loss with a weight for each label, so that each label counts the same over the training split.

    Raises TrainingError for targets that are not labels, and for a loss that takes no weights.
    """
    if targets.dtype != torch.int64 or targets.ndim != 1 or "weight" not in signature(loss).parameters:
        raise TrainingError("class_weights needs labels, and a loss with a parameter `weight` such as cross_entropy")
    counts = targets.bincount().float()
    weights = len(targets) / (counts.clamp(min=1) * (counts > 0).sum())

    def weighted_loss(outputs: Any, targets: Tensor) -> Tensor:
        missing = outputs.shape[1] - len(weights)  # labels that the training split does not have
        return loss(outputs, targets, weight=nn.functional.pad(weights, (0, missing), value=1.0))  # type: ignore[call-arg]

    return weighted_loss


def steps_of(samples: int, config: Hyperparameters, report: Report | None = None) -> int:
    """Number of batches that `fit` trains on, with that report."""
    return config.epochs * math.ceil(samples / (config.batch_size * _size(group_of(report))))


def _step(
    fitting: Fitting,
    batch: Batch,
    loss: Loss,
    *,
    lr: float,
    mixed: bool,
    group: Group | None,
    threads: Shares | None,
) -> None:
    """Take one optimizer step, and record the loss of the batch before the step."""
    for weights in fitting.optimizer.param_groups:
        weights["lr"] = lr
    error = _optimized(fitting.network, fitting.optimizer, batch, loss, mixed=mixed, group=group, threads=threads)
    fitting.step += 1
    fitting.losses.append(error)
    if not math.isfinite(fitting.losses[-1]):
        raise _diverged(fitting, "loss", lr)


def _optimized(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Loss,
    *,
    mixed: bool,
    group: Group | None = None,
    threads: Shares | None = None,
) -> float:
    """Take one optimizer step. Returns the loss of the batch before it. Raises PeerLost."""
    samples, targets = batch

    def mean_loss(samples: Any, targets: Tensor) -> Tensor:
        with torch.autocast(targets.device.type, torch.bfloat16, enabled=mixed, cache_enabled=threads is None):
            outputs = call(network, samples)
        return loss(_in_float32(outputs), targets)

    if threads is not None:
        mean = threads.backward(network, mean_loss, samples, targets)
        optimizer.step()
        return mean
    if group is not None and not len(targets):
        optimizer.zero_grad()
        mean = group.average(network, 0.0, 0)
        optimizer.step()
        return mean
    error = mean_loss(samples, targets)
    optimizer.zero_grad()
    torch.autograd.backward(error)
    if group is not None:
        mean = group.average(network, error.item(), len(targets))
    optimizer.step()
    return error.item() if group is None else mean


def _in_float32(outputs: Any) -> Any:
    """Convert the outputs of a network, one tensor, a tuple or a dictionary, to float32."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, Mapping):
        return {name: output.float() for name, output in outputs.items()}
    return tuple(output.float() for output in outputs)


def _progress(fitting: Fitting, epochs: int, steps: int, metrics: Mapping[str, float]) -> Progress:
    """Build the Progress. Raises TrainingError if a metric is no longer finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _diverged(fitting, name, fitting.optimizer.param_groups[0]["lr"])
    loss = fmean(fitting.losses)
    return Progress(epoch=fitting.epoch, epochs=epochs, step=fitting.step, steps=steps, loss=loss, metrics=metrics)


def _diverged(fitting: Fitting, what: str, lr: float) -> TrainingError:
    return TrainingError(
        f"the {what} is no longer finite at step {fitting.step}: lower lr ({lr:.6g}), "
        "or choose another optimizer or schedule",
    )
