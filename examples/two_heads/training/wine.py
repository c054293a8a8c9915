"""Fits `wine` to the 178 wines that come with scikit-learn (Forina et al., 1988)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training import metrics
from training.loop import fit
from training.recipe import BatchSize, Dataset, Epochs, Hyperparameters, LearningRate, Recipe, Report, Split


class Config(Hyperparameters):
    """The hyperparameters and their defaults."""

    epochs: Epochs = 40
    batch_size: BatchSize = 29
    lr: LearningRate = 0.02


def arguments(_config: Config) -> dict[str, Any]:
    """The network has its defaults."""
    return {}


def load(_config: Config, _folder: Path) -> Dataset:
    """Return 12 measurements (N, 12), and as targets (N, 2) the cultivar and the alcohol."""
    from sklearn.datasets import load_wine  # noqa: PLC0415 - a second, needed here only

    table, cultivar = load_wine(return_X_y=True)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    columns = torch.as_tensor(table, dtype=torch.float32)[order]
    targets = torch.stack([torch.as_tensor(cultivar)[order].float(), columns[:, 0]], dim=1)
    parts = [Split(columns[part, 1:], targets[part]) for part in (slice(116), slice(116, 147), slice(147, None))]
    return Dataset(name="wine", train=parts[0], validation=parts[1], test=parts[2])


def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Return the cross entropy of the cultivar plus the squared error of the alcohol."""
    cultivar, alcohol = outputs
    wrong = nn.functional.cross_entropy(cultivar, targets[:, 0].long())
    return wrong + nn.functional.mse_loss(alcohol, targets[:, 1])


@metrics.returns("accuracy", "alcohol_mse")
def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Return the accuracy of the cultivar and the mean squared error of the alcohol."""
    cultivar, alcohol = metrics.all_outputs(network, split.samples)
    return {
        "accuracy": (cultivar.argmax(dim=1) == split.targets[:, 0]).double().mean().item(),
        "alcohol_mse": nn.functional.mse_loss(alcohol, split.targets[:, 1]).item(),
    }


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the sum of both losses."""
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
    metric="accuracy",
    higher_is_better=True,
)
