"""The recipe of NAME: `torchloop train NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

# isort: split
from training.loop import fit
from training.metrics import regression
from training.recipe import (
    BatchSize,
    Dataset,
    Epochs,
    Hyperparameters,
    LearningRate,
    Recipe,
    Report,
    Split,
)


class Config(Hyperparameters):
    """The hyperparameters and their defaults. Each field is a flag of `torchloop train`."""

    epochs: Epochs = 10
    batch_size: BatchSize = 20
    lr: LearningRate = 0.02
    hidden: int = Field(16, ge=1, le=1_000, description="width of the GRU's state")


def arguments(config: Config) -> dict[str, Any]:
    """Return the constructor arguments of the network."""
    return {"hidden": config.hidden}


def load(_config: Config, _folder: Path) -> Dataset:
    """Make up the data. Read your own from the data folder instead, split for good."""
    return Dataset(
        name="made up",
        train=waves(200, seed=0),
        validation=waves(100, seed=1),
        test=waves(100, seed=2),
    )


def waves(count: int, *, seed: int) -> Split:
    """Draw sine waves of 5 to 20 steps, rows as a request sends them; next values (N, 1)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 21, (count,), generator=generator).tolist()
    speeds = 0.2 + 0.4 * torch.rand(count, 1, generator=generator)  # radians a step
    starts = 6.3 * torch.rand(count, 1, generator=generator)
    points = torch.sin(starts + speeds * torch.arange(21))  # (N, 21)
    pairs = list(zip(points, lengths, strict=True))
    rows = [{"series": wave[:length].numpy()} for wave, length in pairs]
    targets = torch.stack([wave[length] for wave, length in pairs])
    return Split(rows, targets[:, None])


def fixture(_folder: Path) -> Mapping[str, Any]:
    """Prepare `torchloop check`: write a small dataset here, if `load` reads files."""
    return {"epochs": 2}


def fit_network(
    network: nn.Module,
    dataset: Dataset,
    config: Config,
    report: Report,
) -> None:
    """Minimise the squared error."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.mse_loss,
        measure=lambda network: regression(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="value",
    fit=fit_network,
    evaluate=regression,
    metric="mse",
    higher_is_better=False,
    loss="squared error",
    fixture=fixture,
)
