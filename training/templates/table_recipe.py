"""The recipe of NAME: `torchloop train NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

# isort: split
from training.loop import fit
from training.metrics import classification
from training.perceptron import PerceptronConfig, arguments
from training.recipe import (
    BatchSize,
    Dataset,
    Epochs,
    LearningRate,
    Optimizer,
    Recipe,
    Report,
    Split,
)

# isort: split
from training.templates.table_model import LABELS

SPEEDS = {"road": 50, "rail": 70, "air": 400}  # km/h


class Config(PerceptronConfig):
    """The hyperparameters and their defaults. Each field is a flag of `torchloop train`."""

    epochs: Epochs = 40
    batch_size: BatchSize = 50
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.02


def load(_config: Config, _folder: Path) -> Dataset:
    """Make up the data. Read your own from the data folder instead, split for good."""
    return Dataset(
        name="made up",
        train=parcels(500, seed=0),
        validation=parcels(300, seed=1),
        test=parcels(300, seed=2),
    )


def parcels(count: int, *, seed: int) -> Split:
    """Make rows as a request sends them, a tenth without distance; 1 if they come late."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 4, generator=generator).tolist()
    rows: list[dict[str, Any]] = []
    late = []
    for first, second, third, fourth in numbers:
        carrier = list(SPEEDS)[int(3 * first)]
        weight, distance = 50 * second, 3_000 * third
        late.append(int(distance / SPEEDS[carrier] + weight / 5 > 24))  # hours
        known = distance if fourth > 0.1 else None
        rows.append({"carrier": carrier, "weight": weight, "distance": known})
    return Split(rows, torch.tensor(late))


def fixture(_folder: Path) -> Mapping[str, Any]:
    """Prepare `torchloop check`: write a small dataset here, if `load` reads files."""
    return {"epochs": 2}


def fit_network(
    network: nn.Module,
    dataset: Dataset,
    config: Config,
    report: Report,
) -> None:
    """Minimise the cross entropy."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.cross_entropy,
        measure=lambda network: classification(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="label",
    labels=LABELS,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
    loss="cross entropy (nats)",
    fixture=fixture,
)
