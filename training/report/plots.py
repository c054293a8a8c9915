"""Plots of a run: loss and metric over the steps, and the fit or the decision regions.

Colours by Okabe and Ito, for colour-blind readers too; classes also differ in their markers.
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

from models.checkpoints.files import write_whole
from models.garbage import not_collected
from training.compare import Trial
from training.metrics import outputs
from training.recipe import Dataset, Progress, Recipe, Split, TrainingError

if TYPE_CHECKING:  # imported lazily: it takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _GREEN, _RED, _GREY = "#0072B2", "#009E73", "#D55E00", "#555555"
_PALE_BLUE, _PALE_RED = "#8CBFDE", "#EDB388"  # the classes' colours as a background for their points
DPI = 150
_COLOURS = (_BLUE, _RED, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_POINTS = 5_000  # of the training data in a picture
_DASHES = ("-", "--", "-.", ":")


def draw(
    title: str,
    history: Sequence[Progress],
    recipe: Recipe[Any],
    network: nn.Module | None = None,
    dataset: Dataset | None = None,
) -> "Figure":
    """Plot the curves of a run and, if the recipe has a plot and the run is over, its fit next to them."""
    with not_collected():
        from matplotlib.figure import Figure  # noqa: PLC0415

    picture = None
    if recipe.plot is not None and network is not None and dataset is not None:
        picture = partial(recipe.plot, network, dataset)
    panels = 2 if picture is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.4), layout="constrained")
    figure.suptitle(title, fontsize="large", fontweight="bold")
    loss, metric, *rest = figure.subplots(1, panels)
    _curve(loss, [(point.step, point.loss) for point in history], name="training loss", colour=_BLUE, log=True)
    loss.set(title="Training loss, mean since the previous point", ylabel=recipe.loss)
    measured = [(point.step, point.metrics[recipe.metric]) for point in history if recipe.metric in point.metrics]
    name = f"validation {recipe.metric}"
    _curve(metric, measured, name=name, colour=_GREEN, log=not recipe.higher_is_better)
    metric.set(title="On validation samples, not trained on", ylabel=_label(recipe.metric))
    for axes in (loss, metric):
        _steps(axes, history)
    if picture is not None:
        picture(rest[0])
    return figure


def draw_comparison(title: str, trials: Sequence[Trial], recipe: Recipe[Any]) -> "Figure":
    """Plot loss and metric of several runs over their epochs, each with a different colour and dash."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle(title)
    loss, metric = figure.subplots(1, 2)
    for position, trial in enumerate(trials):
        epochs = [point.step * point.epochs / point.steps for point in trial.history]
        style = {"color": _COLOURS[position % 8], "linestyle": _DASHES[position % 4], "linewidth": 1.8}
        style |= {"marker": _marker(epochs), "markersize": 4}
        label = f"{trial.label} (failed)" if trial.failure else trial.label
        loss.plot(epochs, [point.loss for point in trial.history], label=label, **style)
        metric.plot(epochs, [point.metrics.get(recipe.metric, math.nan) for point in trial.history], **style)
    loss.set(title="Training loss", xlabel="epoch", ylabel="loss, mean since the previous report")
    metric.set(title="On validation samples, not trained on", xlabel="epoch", ylabel=_label(recipe.metric))
    for axes in (loss, metric):
        if axes is loss or not recipe.higher_is_better:
            _log(axes)
        axes.set_xlim(0, 1.03 * max((point.epochs for trial in trials for point in trial.history), default=1))
        _quiet(axes)
    figure.legend(loc="outside right upper")
    return figure


def confusion_matrix(counts: Tensor, axes: "Axes") -> None:
    """Plot a confusion matrix, int64 (classes, classes), a row for each true label; only wrong answers are coloured."""
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
    """Write a PNG atomically. Raises TrainingError if it cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    try:
        write_whole(content.getvalue(), path)
    except OSError as err:
        raise TrainingError(f"the plot {path.name} cannot be written ({err.strerror}): choose another --plot") from err


def fitted_curve(network: nn.Module, dataset: Dataset, axes: "Axes") -> None:
    """Plot the network's output over the range of the training points, with these points."""
    points, values = _some(dataset.train)
    x = torch.linspace(points.min().item(), points.max().item(), 200)[:, None]
    axes.scatter(points[:, 0], values[:, 0], s=14, color=_BLUE, alpha=0.6, label="training points")
    axes.plot(x[:, 0], outputs(network, x)[:, 0], color=_RED, linewidth=2.5, label="network")
    axes.set(title="The fit, over the range of the training points", xlabel="x", ylabel="y")
    axes.legend(loc="upper center")
    _quiet(axes)


def _some(split: Split) -> tuple[Tensor, Tensor]:
    """Return samples and targets, at most _POINTS of them, evenly spread over the split."""
    rows = torch.arange(0, len(split), max(1, math.ceil(len(split) / _POINTS)))
    return split.samples.index_select(0, rows), split.targets[rows]


def decision_field(network: nn.Module, dataset: Dataset, axes: "Axes") -> None:
    """Plot the decision regions (probability of label 1 in the plane) and the training points."""
    points, labels = _some(dataset.train)
    low, high = points.min().item() - 0.5, points.max().item() + 0.5
    ticks = torch.linspace(low, high, 150)
    field = torch.cartesian_prod(ticks, ticks)  # (150 * 150, 2), the first feature slowest
    probability = outputs(network, field).softmax(dim=1)[:, 1].reshape(150, 150).T
    from matplotlib.colors import LinearSegmentedColormap  # noqa: PLC0415

    between = LinearSegmentedColormap.from_list("classes", [_PALE_RED, "white", _PALE_BLUE])
    levels = torch.linspace(0, 1, 11).tolist()
    colours = axes.contourf(ticks, ticks, probability, levels=levels, cmap=between)
    if probability.min() < 0.5 < probability.max():
        axes.contour(ticks, ticks, probability, levels=[0.5], colors="black", linewidths=1.2, linestyles="dashed")
    axes.figure.colorbar(colours, ax=axes, label="probability of label 1 (dashed line: 0.5)")
    for label, marker, colour in ((0, "o", _RED), (1, "^", _BLUE)):
        x, y = points[labels == label].unbind(dim=1)
        axes.scatter(
            x,
            y,
            s=26,
            marker=marker,
            color=colour,
            edgecolors="white",
            linewidths=0.6,
            label=f"label {label}",
        )
    axes.set(title="Decision field and training points", xlabel="first feature", ylabel="second feature")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", framealpha=1)


_LABELS = {"accuracy": "accuracy (share of the samples)", "mse": "mean squared error (unit of y, squared)"}


def _label(metric: str) -> str:
    return _LABELS.get(metric, metric)


def _curve(axes: "Axes", points: Sequence[tuple[int, float]], *, name: str, colour: str, log: bool) -> None:
    """Plot a line with the last value in the legend; up to 50 points get markers."""
    if log:
        _log(axes)
    label = f"{name}, {points[-1][1]:.4g} at the last step" if points else name
    steps, values = zip(*points, strict=True) if points else ((), ())
    axes.plot(steps, values, color=colour, linewidth=1.8, marker=_marker(points), markersize=4, label=label)
    axes.legend(loc="best", framealpha=0.9, fontsize="small")
    _quiet(axes)


def _marker(points: Sequence[object]) -> str:
    """Choose the marker of a line: needed for a single point, omitted above 50 points."""
    return "o" if len(points) <= 50 else ""


def _log(axes: "Axes") -> None:
    """Use a logarithmic axis with plain numbers, at 1, 2 and 5 times powers of ten, or at powers of ten only."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    class Ticks(LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            self.set_params(subs=(1, 2, 5) if vmax < 1e4 * vmin else (1,))  # with three, matplotlib draws no labels
            return super().tick_values(vmin, vmax)

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(Ticks())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _steps(axes: "Axes", history: Sequence[Progress]) -> None:
    """Scale the x axis to the whole run, in whole steps, even if the run is not finished."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    last = history[-1] if history else None
    axes.set_xlabel(f"step, of {last.steps} in {last.epochs} epoch{'s' * (last.epochs > 1)}" if last else "step")
    if last:
        axes.set_xlim(0, 1.03 * last.steps)


def _quiet(axes: "Axes") -> None:
    axes.grid(color=_GREY, alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
