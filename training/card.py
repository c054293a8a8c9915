"""python -m training.card: write the model card docs/models/NAME.md of each shipped checkpoint, and its picture.

All figures come from the checkpoint's record or are measured on the file.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from inspect import getdoc
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.catalog import PRETRAINED, specs
from models.checkpoints.record import Record
from models.errors import InvalidInput
from models.handwriting.normalise import read_digit
from models.spec import Array
from training import data, metrics
from training.recipe import Dataset, Recipe, TrainingError, recipes
from training.report import field_pictures, plots
from training.report.console import say
from training.run import reopened

_FOLDER = Path(__file__).parents[1] / "docs" / "models"
_PICTURES = 300  # of each kind, from the first test digits
_WORST = 10  # most frequent confusions in the card
_ABOUT_DATA = MappingProxyType(
    {"mnist": data.mnist, "digits": data.digits, "parabola": data.parabola, "clouds": data.clouds},
)


def main() -> int:
    """Write all cards. The exit status is 1 if the dataset of a checkpoint is missing."""
    parser = argparse.ArgumentParser(prog="python -m training.card", description=__doc__)
    folder = os.environ.get("TORCHLOOP_DATA") or "data"
    parser.add_argument("--data", type=Path, default=Path(folder).expanduser(), help="folder of datasets")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where the cards are written")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in recipes():
            if (PRETRAINED / f"{name}.pt").exists():
                say(f"card {write_card(name, options.data, options.folder)}")
    except TrainingError as err:
        sys.stderr.write(f"python -m training.card: {err}\n")
        return 1
    return 0


def write_card(name: str, data_folder: Path, folder: Path) -> Path:
    """Measure the shipped checkpoint, write its card and picture. Raises TrainingError if the dataset is missing."""
    recipe: Recipe[Any] = recipes()[name]
    network, record, dataset = reopened(name, recipe, PRETRAINED / f"{name}.pt", data_folder)
    counts = metrics.confusion(network, dataset.test) if recipe.details else None
    _draw(network, recipe, dataset, counts, folder / f"{name}.png")
    parts = [_head(name, record), _figures(record)]
    if counts is not None:
        parts.append(_by_class(counts))
    if specs()[name].picture:
        parts.append(_by_kind(network, dataset))
    if counts is None:
        parts.append(_by_range(network, dataset))
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _head(name: str, record: Record) -> str:
    about = getdoc(_ABOUT_DATA[record.dataset]) or ""
    changed = "\n".join(f"| {key} | {value} |" for key, value in record.config.items())
    return f"""# {name}

{specs()[name].summary}.

Written by `python -m training.card` from the shipped checkpoint, `models/pretrained/{name}.pt`.

![the fit, or the confusion matrix]({name}.png)

## Data

{about.split("Raises")[0].strip()}

The training split trains the network, the validation split is for choices, the test split only for these figures.

## Recipe

```sh
{record.command}
```

Made with PyTorch {record.torch.split("+")[0]}.

| hyperparameter | value |
|---|---|
{changed}"""


def _figures(record: Record) -> str:
    main = [key for key in record.metrics if f"validation_{key}" in record.metrics]
    rows = [f"| {key} | {record.metrics[key]:.4f} | {record.metrics[f'validation_{key}']:.4f} |" for key in main]
    head = "## Figures\n\n| figure | test | validation |\n|---|---|---|\n"
    explained = "`loss` is the mean negative log likelihood in nats; `calibration_error` compares, in 15 bins, how sure"
    explained += " the answers are with the share of them that is right."
    return head + "\n".join(rows) + (f"\n\n{explained}" if "loss" in main else "")


def _by_class(counts: Tensor) -> str:
    recall = counts.diagonal() / counts.sum(dim=1)
    rows = [
        f"| {label} | {int(counts[label].sum())} | {int(counts[label].sum() - counts[label, label])} | {share:.4f} |"
        for label, share in sorted(enumerate(recall.tolist()), key=lambda pair: pair[1])
    ]
    wrong = counts - counts.diagonal().diag()
    places = sorted(wrong.nonzero().tolist(), key=lambda place: -int(wrong[place[0], place[1]]))
    worst = [f"{row} taken for {column}: {int(wrong[row, column])}" for row, column in places[:_WORST]]
    table = "\n".join(["| label | test samples | wrong | recall |", "|---|---|---|---|", *rows])
    return f"## What it is bad at: classes\n\nThe worst first.\n\n{table}\n\nMost frequent: {'; '.join(worst)}."


def _by_kind(network: nn.Module, dataset: Dataset) -> str:
    shares = accuracy_by_kind(network, dataset.test.samples[:_PICTURES], dataset.test.targets[:_PICTURES])
    rows = [f"| {kind} | {share:.4f} |" for kind, share in sorted(shares.items(), key=lambda pair: pair[1])]
    table = "\n".join(["| kind of picture | accuracy |", "|---|---|", *rows])
    made = f"{_PICTURES} pictures of each kind, made from the first test digits by `training/report/field_pictures.py`"
    return f"## What it is bad at: pictures\n\nThe worst first; {made}, and read by `models/handwriting`.\n\n{table}"


def accuracy_by_kind(network: nn.Module, samples: Tensor, targets: Tensor) -> Mapping[str, float]:
    """Measure the accuracy on each kind of generated picture, made from samples uint8 (N, 1, 28, 28)."""
    return {kind: accuracy_of(make, network, samples, targets) for kind, make in field_pictures.KINDS.items()}


def accuracy_of(
    make: field_pictures.Maker, network: nn.Module, samples: Tensor, targets: Tensor, *, seed: int = 0
) -> float:
    """Measure the accuracy on pictures that `make` generates from samples uint8 (N, 1, 28, 28).

    A picture in which no ink is found counts as wrong.
    """
    random = np.random.default_rng(seed)
    read = [_read(make, sample, random) for sample in samples[:, 0].numpy()]
    found = torch.tensor([field is not None for field in read])
    fields = torch.tensor(np.stack([field for field in read if field is not None]))[:, None]
    right = metrics.outputs(network, fields).argmax(dim=1) == targets[found]
    return right.sum().item() / len(samples)


def _read(make: field_pictures.Maker, sample: Array, random: np.random.Generator) -> Array | None:
    try:
        return read_digit(make(sample, random))
    except InvalidInput:
        return None


def _by_range(network: nn.Module, dataset: Dataset) -> str:
    """Table for a regressor of one number: the error in each fifth of the range, and outputs outside it."""
    x, y = dataset.test.samples[:, 0], dataset.test.targets
    error = (metrics.outputs(network, dataset.test.samples) - y).square()[:, 0]
    edges = torch.linspace(x.min().item(), x.max().item(), 6).tolist()
    rows = []
    for low, high in pairwise(edges):
        inside = (x >= low) & (x <= high)
        rows.append(f"| {low:.1f} to {high:.1f} | {error[inside].mean():.4f} |")
    outside = metrics.outputs(network, torch.tensor([[-2.0], [2.0]]))[:, 0].tolist()
    table = "\n".join(["| x | mean squared error |", "|---|---|", *rows])
    beyond = f"It has seen no x outside this range: at -2 it says {outside[0]:.2f}, at 2 {outside[1]:.2f}."
    return f"## What it is bad at\n\n{table}\n\n{beyond}"


def _draw(network: nn.Module, recipe: Recipe[Any], dataset: Dataset, counts: Tensor | None, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    axes = figure.subplots()
    if recipe.plot:
        recipe.plot(network, dataset, axes)
    elif counts is not None:
        plots.confusion_matrix(counts, axes)
    plots.save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
