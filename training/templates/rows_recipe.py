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
from training.templates.rows_model import LABELS


class Config(PerceptronConfig):
    """The hyperparameters and their defaults. Each field is a flag of `torchloop train`."""

    epochs: Epochs = 60
    batch_size: BatchSize = 50
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.02


def load(_config: Config, _folder: Path) -> Dataset:
    """Make up the data. Read your own from the data folder instead, split for good."""
    return Dataset(
        name="made up",
        train=boxes(500, seed=0),
        validation=boxes(500, seed=1),
        test=boxes(500, seed=2),
    )


def boxes(count: int, *, seed: int) -> Split:
    """Sizes float32 (count, 3) and labels int64 (count,): 1 if a box has over 100 cm3."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 * torch.rand(count, 3, generator=generator)
    return Split(sizes, (sizes.prod(dim=1) > 100).long())


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
