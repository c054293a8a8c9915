"""Fits `shapes` to made-up pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import Field
from torch import nn

from models.shapes import SHAPES
from training.loop import fit
from training.metrics import classification
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 12
    batch_size: BatchSize = 30
    lr: LearningRate = 0.005
    pictures: int = Field(900, ge=30, le=100_000, description="pictures to train on")


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(config: Config, _folder: Path) -> Dataset:
    """Draw the pictures."""
    counts = (config.pictures, 150, 150)
    parts = [_pictures(count, seed) for seed, count in enumerate(counts)]
    return Dataset(name="made-up shapes", train=parts[0], validation=parts[1], test=parts[2])


def _pictures(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    pictures = np.stack([np.asarray(_drawn(int(label), rng)) for label in labels])  # (count, 32, 32, 3)
    return Split(torch.from_numpy(pictures), torch.from_numpy(labels))


def _drawn(label: int, rng: np.random.Generator) -> Image.Image:
    """Draw a circle (0), a square (1) or a triangle (2): a dark colour on a bright ground."""
    ground, ink = rng.integers(150, 256, size=3).tolist(), rng.integers(0, 110, size=3).tolist()
    picture = Image.new("RGB", (32, 32), tuple(ground))
    size, (left, top) = int(rng.integers(12, 22)), rng.integers(1, 10, size=2).tolist()
    right, bottom = left + size, top + size
    draw = ImageDraw.Draw(picture)
    match label:
        case 0:
            draw.ellipse((left, top, right, bottom), fill=tuple(ink))
        case 1:
            draw.rectangle((left, top, right, bottom), fill=tuple(ink))
        case _:
            draw.polygon([(left, bottom), (right, bottom), (left + size // 2, top)], fill=tuple(ink))
    return picture


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
    labels=SHAPES,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
    fixture=lambda _: {"epochs": 2, "pictures": 150},
)
