"""The recipe of NAME: `torchloop train NAME`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

# isort: split
from training.loop import fit
from training.metrics import classification
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

# isort: split
from training.templates.pictures_model import LABELS

SIZE = 32  # px


class Config(Hyperparameters):
    """The hyperparameters and their defaults. Each field is a flag of `torchloop train`."""

    epochs: Epochs = 8
    batch_size: BatchSize = 20
    lr: LearningRate = 0.01


def arguments(config: Config) -> dict[str, Any]:
    """Return the constructor arguments of the network."""
    return {"activation": config.activation}


def load(_config: Config, _folder: Path) -> Dataset:
    """Make up the data. Read your own from the data folder instead, split for good."""
    return Dataset(
        name="made up",
        train=stripes(400, seed=0),
        validation=stripes(200, seed=1),
        test=stripes(200, seed=2),
    )


def stripes(count: int, *, seed: int) -> Split:
    """Draw stripes of two colours: uint8 (count, 32, 32, 3); 1 if they are vertical."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    widths = torch.randint(2, 6, (count, 1), generator=generator)  # px
    bright = torch.arange(SIZE) // widths % 2 == 1  # (count, SIZE)
    upright, level = bright[:, None, :], bright[:, :, None]
    drawn = torch.where((labels == 1)[:, None, None], upright, level)
    light = torch.randint(150, 256, (count, 1, 1, 3), generator=generator)
    dark = torch.randint(0, 100, (count, 1, 1, 3), generator=generator)
    shape = (count, SIZE, SIZE, 3)
    pictures = torch.where(drawn[..., None], light, dark).expand(shape)
    return Split(pictures.to(torch.uint8), labels)


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
