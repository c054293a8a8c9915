"""Recipe of the two-class classifier: `python -m training classifier`."""

from pathlib import Path

from torch import nn

from training import data, metrics
from training.loop import fit
from training.perceptron import PerceptronConfig, arguments
from training.recipe import BatchSize, Dataset, Epochs, LearningRate, Recipe, Report
from training.report import plots


class Config(PerceptronConfig):
    """Defaults: 30 full-batch steps over 200 points."""

    epochs: Epochs = 30
    batch_size: BatchSize = 200
    lr: LearningRate = 0.5


def load(_config: Config, _folder: Path) -> Dataset:
    """Generate two clouds of points."""
    return data.clouds()


def fit_network(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    """Minimise the cross entropy."""
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.cross_entropy,
        measure=lambda network: {"accuracy": metrics.classification(network, dataset.validation)["accuracy"]},
        samples_per_report=len(dataset.train),
    )


RECIPE = Recipe(
    config=Config,
    arguments=arguments,
    load=load,
    target="label",
    labels=("0", "1"),
    fit=fit_network,
    evaluate=metrics.classification,
    details=metrics.classification_by_class,
    metric="accuracy",
    higher_is_better=True,
    loss="cross entropy (nats)",
    plot=plots.decision_field,
    built_in={"clouds": {"train": 200, "validation": 5_000, "test": 5_000}},
)
