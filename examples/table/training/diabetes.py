"""Fits `diabetes` to the 442 patients that come with scikit-learn (Efron et al., 2004)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.diabetes import LABELS, numbers_of
from training.loop import fit
from training.metrics import classification
from training.perceptron import PerceptronConfig, arguments
from training.recipe import BatchSize, Dataset, Epochs, LearningRate, Optimizer, Recipe, Report, Split


class Config(PerceptronConfig):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 30
    batch_size: BatchSize = 30
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.01


def load(_config: Config, _folder: Path) -> Dataset:
    """Return rows as a request sends them; a fifth of the optional numbers is left out."""
    from sklearn.datasets import load_diabetes  # noqa: PLC0415 - a second, needed here only

    table, progress = load_diabetes(return_X_y=True, scaled=False)
    left_out = np.random.default_rng(0).random((len(table), 2)) < 0.2
    rows = [
        {
            "age": age,
            "sex": "female" if sex == 2 else "male",
            "bmi": bmi,
            "pressure": None if without_pressure else pressure,
            "sugar": None if without_sugar else sugar,
        }
        for (age, sex, bmi, pressure, *_, sugar), (without_pressure, without_sugar) in zip(table, left_out, strict=True)
    ]
    targets = torch.as_tensor(progress > 140).long()
    parts = [Split(rows[part], targets[part]) for part in (slice(302), slice(302, 372), slice(372, None))]
    return Dataset(name="diabetes", train=parts[0], validation=parts[1], test=parts[2])


def artifacts(_config: Config, dataset: Dataset) -> Mapping[str, Any]:
    """Return mean and spread of each number over the training split."""
    numbers = np.stack([numbers_of(row) for row in dataset.train.samples])
    return {"mean": np.nanmean(numbers, axis=0), "spread": np.nanstd(numbers, axis=0)}


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
    artifacts=artifacts,
    load=load,
    target="label",
    labels=LABELS,
    fit=fit_network,
    evaluate=classification,
    metric="accuracy",
    higher_is_better=True,
)
