"""Pictures of a run: loss and metric over the steps, and what the network makes of its data.

Colours after Okabe and Ito, which all eyes tell apart; classes differ in shape as well.
"""

import io
import itertools
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.files import write_whole
from training.compare import Trial
from training.metrics import outputs
from training.recipe import Dataset, Progress, Recipe, TrainingError

if TYPE_CHECKING:  # imported where it is used: it takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREEN, _RED, _GREY = "#0072B2", "#009E73", "#D55E00", "#555555"
_COLOURS = (_BLUE, _RED, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_DASHES = ("-", "--", "-.", ":")


def draw(
    title: str,
    history: Sequence[Progress],
    recipe: Recipe[Any],
    network: nn.Module | None = None,
    dataset: Dataset | None = None,
) -> "Figure":
    """The curves of a run and, where the recipe has one and the run is over, the picture of its fit, side by side."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    picture = None
    if recipe.plot is not None and network is not None and dataset is not None:
        picture = partial(recipe.plot, network, dataset)
    panels = 2 if picture is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    figure.suptitle(title)
    loss, metric, *rest = figure.subplots(1, panels)
    _curve(loss, [(point.step, point.loss) for point in history], colour=_BLUE)
    loss.set(title="Training loss", ylabel="loss, mean since the report before", yscale="log")
    measured = [(point.step, point.metrics[recipe.metric]) for point in history if recipe.metric in point.metrics]
    _curve(metric, measured, colour=_GREEN)
    metric.set(title="On validation samples, not trained on", ylabel=_label(recipe.metric))
    if not recipe.higher_is_better:
        metric.set(yscale="log")
    if picture is not None:
        picture(rest[0])
    return figure


def draw_comparison(title: str, trials: Sequence[Trial], recipe: Recipe[Any]) -> "Figure":
    """The loss and the metric of several runs over their epochs, each in a colour and a dash of its own."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle(title)
    loss, metric = figure.subplots(1, 2)
    for position, trial in enumerate(trials):
        epochs = [point.step * point.epochs / point.steps for point in trial.history]
        style = {"color": _COLOURS[position % 8], "linestyle": _DASHES[position % 4], "linewidth": 1.8}
        label = f"{trial.label} (failed)" if trial.failure else trial.label
        loss.plot(epochs, [point.loss for point in trial.history], label=label, **style)
        metric.plot(epochs, [point.metrics.get(recipe.metric, math.nan) for point in trial.history], **style)
    loss.set(title="Training loss", xlabel="epoch", ylabel="loss, mean since the report before", yscale="log")
    metric.set(title="On validation samples, not trained on", xlabel="epoch", ylabel=_label(recipe.metric))
    if not recipe.higher_is_better:
        metric.set(yscale="log")
    for axes in (loss, metric):
        _quiet(axes)
    figure.legend(loc="outside right upper")
    return figure


def confusion_matrix(counts: Tensor, axes: "Axes") -> None:
    """int64 (classes, classes), a row for each true label: each wrong answer's count, the right ones left pale."""
    wrong = counts - counts.diagonal().diag()
    axes.imshow(wrong, cmap="Blues", vmin=0, vmax=max(int(wrong.max()), 1) * 1.3)
    for row, column in itertools.product(range(len(counts)), repeat=2):
        right = row == column
        if right or counts[row, column]:
            axes.text(column, row, str(counts[row, column].item()), ha="center", va="center", fontsize=8,
                      color=_GREY if right else "black", weight="normal" if right else "bold")  # fmt: skip
    ticks = range(len(counts))
    axes.set(title="Confusion matrix, test split", xlabel="answer", ylabel="true label", xticks=ticks, yticks=ticks)


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG, whole or not at all. Raises TrainingError where it cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    try:
        write_whole(content.getvalue(), path)
    except OSError as err:
        raise TrainingError(f"the plot {path.name} cannot be written ({err.strerror}): choose another --plot") from err


def fitted_curve(network: nn.Module, dataset: Dataset, axes: "Axes") -> None:
    """What the network puts out for each x in the range of the training points, over these points."""
    points = dataset.train
    x = torch.linspace(points.samples.min().item(), points.samples.max().item(), 200)[:, None]
    axes.scatter(points.samples[:, 0], points.targets[:, 0], s=14, color=_BLUE, alpha=0.6, label="training points")
    axes.plot(x[:, 0], outputs(network, x)[:, 0], color=_RED, linewidth=2.5, label="network")
    axes.set(title="The fit", xlabel="x", ylabel="y")
    axes.legend(loc="upper center")
    _quiet(axes)


def decision_field(network: nn.Module, dataset: Dataset, axes: "Axes") -> None:
    """The probability of label 1 at each place of the plane, under the training points."""
    points, labels = dataset.train.samples, dataset.train.targets
    low, high = points.min().item() - 0.5, points.max().item() + 0.5
    ticks = torch.linspace(low, high, 150)
    field = torch.cartesian_prod(ticks, ticks)  # (150 * 150, 2), the first feature slowest
    probability = outputs(network, field).softmax(dim=1)[:, 1].reshape(150, 150).T
    levels = torch.linspace(0, 1, 11).tolist()
    colours = axes.contourf(ticks, ticks, probability, levels=levels, cmap="PuOr", alpha=0.6)
    axes.figure.colorbar(colours, ax=axes, label="probability of label 1")
    for label, marker, colour in ((0, "o", _RED), (1, "^", _BLUE)):
        x, y = points[labels == label].unbind(dim=1)
        axes.scatter(
            x, y, s=20, marker=marker, color=colour, edgecolors="white", linewidths=0.6, label=f"label {label}"
        )
    axes.set(title="The decision field and the training points", xlabel="first feature", ylabel="second feature")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", framealpha=1)


_LABELS = {"accuracy": "accuracy, share of the samples", "mse": "mean squared error"}


def _label(metric: str) -> str:
    return _LABELS.get(metric, metric)


def _curve(axes: "Axes", points: Sequence[tuple[int, float]], *, colour: str) -> None:
    marker = "o" if len(points) <= 50 else ""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker=marker, markersize=3)
    axes.set(xlabel="step")
    _quiet(axes)


def _quiet(axes: "Axes") -> None:
    axes.grid(color=_GREY, alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
