"""Fits `same_digit` to pairs of the 1,797 digits that come with scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from models.spec import Array
from training import metrics
from training.loop import fit
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 20
    batch_size: BatchSize = 50
    lr: LearningRate = 0.003
    pairs: int = Field(4_000, ge=100, le=100_000, description="pairs to train on")


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(config: Config, _folder: Path) -> Dataset:
    """Make pairs, half of them of the same digit. No picture of a held-out split is in another one."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, needed here only

    digits = load_digits()
    pictures, labels = (digits.images * 15).astype(np.uint8), digits.target
    parts = [
        _pairs(pictures[part], labels[part], count, seed)
        for seed, (part, count) in enumerate(
            [(slice(1200), config.pairs), (slice(1200, 1500), 500), (slice(1500, None), 500)]
        )
    ]
    return Dataset(name="pairs of digits", train=parts[0], validation=parts[1], test=parts[2])


def _pairs(pictures: Array, labels: Array, count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    rows, same = [], []
    for position in range(count):
        left = rng.integers(len(labels))
        others = np.flatnonzero((labels == labels[left]) == (position % 2 == 0))
        rows.append({"left": pictures[left], "right": pictures[rng.choice(others)]})
        same.append(float(position % 2 == 0))
    return Split(rows, torch.tensor(same)[:, None])


@metrics.returns("accuracy")
def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Return the share of pairs that are told right."""
    logits = metrics.outputs(network, split.samples)
    return {"accuracy": ((logits > 0) == (split.targets > 0.5)).double().mean().item()}


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the cross entropy."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.binary_cross_entropy_with_logits,
        measure=lambda network: evaluate(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="value",
    fit=fit_network,
    evaluate=evaluate,
    metric="accuracy",
    higher_is_better=True,
    fixture=lambda _: {"epochs": 2, "pairs": 400},
)
