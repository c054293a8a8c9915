"""Recipe of the regressor: `python -m training regressor`."""

from pathlib import Path

import torch
from torch import nn

from training import data, metrics
from training.loop import fit
from training.perceptron import PerceptronConfig, arguments
from training.recipe import BatchSize, Dataset, Epochs, LearningRate, Recipe, Report
from training.report import plots


class Config(PerceptronConfig):
    """Defaults: 100 full-batch steps of gradient descent over 100 points."""

    epochs: Epochs = 100
    batch_size: BatchSize = 100
    lr: LearningRate = 0.5


def load(_config: Config, _folder: Path) -> Dataset:
    """Generate a noisy parabola."""
    return data.parabola()


def spread(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise the hidden layer: kinks spread evenly over [-1, 1], units that rise outwards.

    With PyTorch's default initialisation many kinks are outside the data: after the default run 143 of 200 seeds have
    a validation error above 0.005, some by fifty times. With this one, none of 200 (median 0.0037, worst 0.0042): units
    that rise outwards overlap little, and slopes of 4 / sqrt(width) keep a learning rate of 0.5 stable at any width.
    """
    weight, bias, *_ = network.parameters()  # (width, 1) and (width,) of the hidden layer
    width = len(bias)
    bends = 2 * (torch.arange(width) + torch.rand(width, generator=generator)) / width - 1
    slopes = torch.where(bends < 0, -4.0, 4.0) / width**0.5
    with torch.no_grad():
        weight.copy_(slopes[:, None])
        bias.copy_(-slopes * bends)


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the mean squared error, starting from `spread`."""
    spread(network, torch.Generator().manual_seed(config.seed))
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.mse_loss,
        measure=lambda network: metrics.regression(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="value",
    fit=fit_network,
    evaluate=metrics.regression,
    metric="mse",
    higher_is_better=False,
    loss="squared error (unit of y, squared)",
    plot=plots.fitted_curve,
    built_in={"parabola": {"train": 100, "validation": 5_000, "test": 5_000}},
)
