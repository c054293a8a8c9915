"""Fits `strokes` to made-up strokes."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.strokes import FORMS
from training.loop import fit
from training.metrics import classification
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 8
    batch_size: BatchSize = 20
    lr: LearningRate = 0.02


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(_config: Config, _folder: Path) -> Dataset:
    """Draw strokes of 4 to 24 moves."""
    return Dataset(name="made-up strokes", train=_strokes(240, 0), validation=_strokes(90, 1), test=_strokes(90, 2))


def _strokes(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    forms = torch.arange(count) % 3
    lengths = torch.randint(4, 25, (count,), generator=generator).tolist()
    rows = [
        {"moves": _moves(form, length, generator).numpy()} for form, length in zip(forms.tolist(), lengths, strict=True)
    ]
    return Split(rows, forms)


def _moves(form: int, length: int, generator: torch.Generator) -> Tensor:
    """Return the moves of a line (0), a circle (1) or a zigzag (2) in some direction, float32 (length, 2)."""
    steps = torch.arange(length)
    turns = (steps * 0, steps * 2 * math.pi / length, steps % 2 * 1.5)[form]
    angles = turns + 2 * math.pi * torch.rand((), generator=generator)
    noise = 0.1 * torch.randn(length, 2, generator=generator)
    return torch.stack([angles.cos(), angles.sin()], dim=1) + noise


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
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
    labels=FORMS,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
)
