"""Time of one MNIST epoch at batch size 50: training/loop.py compared with the classic recipe.

The classic recipe is torch.utils.data.DataLoader over torchvision's MNIST with ToTensor, two worker processes and Adam.
Both fit the same network to the same 55,000 images. This project's loop also computes the accuracy on validation
images, as in every run, divides each batch among threads, and uses bfloat16 if the processor has instructions for it;
with `--mixed off` it uses float32, as the classic recipe does. Each epoch runs in a separate process. Only the epoch is
timed, without start-up and reading the files. The recipes alternate, so that other load on the machine affects both.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from benchmarks import Options
from benchmarks.report import Aim, table
from models.networks import MnistCNN
from training import metrics, mnist
from training.data import mnist as mnist_data
from training.fitting.precision import Mixed
from training.recipe import TrainingError
from training.torchvision_shim import import_torchvision

_AIM_S, _AIM_RATIO = 4.5, 4.0  # on two cores on which an epoch of the classic recipe takes 17.95 s


class Epoch(NamedTuple):
    """Duration of one epoch, and the resulting accuracy on the 10,000 test images."""

    seconds: float
    accuracy: float


def main(options: Options) -> str:
    """Return the table, or a message if the MNIST files are missing."""
    try:
        mnist_data(options.data)
    except TrainingError as err:
        return f"  skipped: {err}"
    taken: dict[str, list[Epoch]] = {name: [] for name in _RECIPES}
    for seed in range(options.rounds):
        for name, epochs in taken.items():
            epochs.append(_alone(name, options.data, seed))
    rows = []
    for name, epochs in taken.items():
        ratios = (slow.seconds / fast.seconds for slow, fast in zip(taken["classic"], epochs, strict=True))
        seconds, accuracy = (median(figures) for figures in zip(*epochs, strict=True))
        rows.append([name, f"{seconds:.2f}", f"{median(ratios):.2f}", f"{accuracy:.4f}"])
    head = [f"MNIST, batch 50, medians of {options.rounds}", "s an epoch", "times as fast as classic", "test accuracy"]
    return f"{table(head, rows)}\n\n{_aims(taken)}"


def _aims(taken: Mapping[str, Sequence[Epoch]]) -> str:
    """Return the table of aims: the epoch, and its accuracy compared with that of the classic recipe."""
    seconds = {name: median(epoch.seconds for epoch in epochs) for name, epochs in taken.items()}
    accuracy = {name: median(epoch.accuracy for epoch in epochs) for name, epochs in taken.items()}
    aims = [
        Aim("s an epoch", [seconds["torchloop"]], _AIM_S),
        Aim("times as fast as classic", [seconds["classic"] / seconds["torchloop"]], _AIM_RATIO, at_least=True),
        Aim("test accuracy - that of classic", [accuracy["torchloop"] - accuracy["classic"]], 0, at_least=True),
    ]
    return table(["aim", "reached", "", ""], [aim.cells() for aim in aims])


def classic(data: Path, seed: int) -> Epoch:
    """Train as in PyTorch tutorials: without the network's own scaling, since ToTensor has scaled the images."""
    transforms = import_torchvision("torchvision.transforms")
    source = import_torchvision("torchvision.datasets").MNIST(data, transform=transforms.ToTensor())
    images = Subset(source, range(55_000))
    torch.manual_seed(seed)
    network = MnistCNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    began = time.perf_counter()
    for samples, targets in DataLoader(images, batch_size=50, shuffle=True, num_workers=2):
        loss = nn.functional.cross_entropy(network.layers(samples), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return _finished(network, data, began)


def torchloop(data: Path, seed: int, *, mixed: Mixed = "auto") -> Epoch:
    """Train as `python -m training mnist` does."""
    dataset = mnist_data(data)
    torch.manual_seed(seed)
    network = MnistCNN()
    began = time.perf_counter()
    mnist.fit_network(network, dataset, mnist.Config(seed=seed, mixed=mixed), lambda _: None)
    return _finished(network, data, began)


def _finished(network: nn.Module, data: Path, began: float) -> Epoch:
    seconds = time.perf_counter() - began
    return Epoch(seconds, metrics.classification(network, mnist_data(data).test)["accuracy"])


def _alone(name: str, data: Path, seed: int) -> Epoch:
    """Run this module in a subprocess for one epoch."""
    command = [sys.executable, "-m", "benchmarks.epoch", name, str(data), str(seed)]
    return Epoch(*json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


_RECIPES: dict[str, Callable[[Path, int], Epoch]] = {
    "classic": classic,
    "torchloop": torchloop,
    "torchloop --mixed off": partial(torchloop, mixed="off"),
}

if __name__ == "__main__":
    _name, _data, _seed = sys.argv[1:]
    sys.stdout.write(json.dumps(_RECIPES[_name](Path(_data), int(_seed))))
