"""Fits `denoise` to made-up pictures of boxes."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from training import metrics
from training.loop import fit
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split

SIZE = 24  # px


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 15
    batch_size: BatchSize = 10
    lr: LearningRate = 0.003
    pictures: int = Field(300, ge=50, le=100_000, description="pictures to train on")


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(config: Config, _folder: Path) -> Dataset:
    """Draw pictures, with noise as samples and without as targets."""
    counts = (config.pictures, 50, 50)
    parts = [_pictures(count, seed) for seed, count in enumerate(counts)]
    return Dataset(name="made-up boxes", train=parts[0], validation=parts[1], test=parts[2])


def _pictures(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.empty(count, SIZE, SIZE)
    for picture in clean:
        ground, ink = (255 * torch.rand(2, generator=generator)).tolist()
        left, top, width, height = torch.randint(2, SIZE // 2, (4,), generator=generator).tolist()
        picture.fill_(ground)
        picture[top : top + height, left : left + width] = ink
    noisy = clean + 25 * torch.randn(clean.shape, generator=generator)
    rows = [{"picture": picture.numpy()} for picture in noisy.clamp(0, 255).to(torch.uint8)]
    return Split(rows, clean)


def loss(clean: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared error of levels from 0 to 1."""
    return nn.functional.mse_loss(clean / 255, wanted / 255)


@metrics.returns("mse")
def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Return the mean squared error of levels from 0 to 1."""
    return {"mse": loss(metrics.outputs(network, split.samples), split.targets).item()}


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the squared error."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=loss,
        measure=lambda network: evaluate(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    fit=fit_network,
    evaluate=evaluate,
    metric="mse",
    higher_is_better=False,
    fixture=lambda _: {"epochs": 2, "pictures": 100},
)
