"""Fits `photos` to made-up photos: noise with a tinge of one colour."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from models.photos import LABELS, SIZE
from training.loop import fit
from training.metrics import classification
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 3
    batch_size: BatchSize = 16
    lr: LearningRate = 0.0003
    photos: int = Field(240, ge=4, le=100_000, description="photos to train on")


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(config: Config, _folder: Path) -> Dataset:
    """Make the photos."""
    held_out = max(6, config.photos // 6)
    parts = [_photos(count, seed) for seed, count in enumerate((config.photos, held_out, held_out))]
    return Dataset(name="made-up photos", train=parts[0], validation=parts[1], test=parts[2])


def _photos(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(LABELS)
    photos = torch.randint(0, 180, (count, SIZE, SIZE, 3), generator=generator)
    photos[torch.arange(count), :, :, labels] += 75
    return Split(photos.to(torch.uint8), labels)


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
    labels=LABELS,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
    fixture=lambda _: {"epochs": 1, "photos": 8},
)
