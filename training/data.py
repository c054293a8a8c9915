"""Datasets and their splits, as raw input tensors. They do not depend on the seed of the run.

Nothing is normalised here: scaling is part of the networks.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from training import idx
from training.recipe import Dataset, Split, TrainingError
from training.torchvision_shim import import_torchvision

_VALIDATION = 5_000  # of the 60,000 training images of MNIST, the last
_HELD_OUT = 5_000  # points in each generated held-out split: enough for two stable digits in every metric


def mnist(folder: Path) -> Dataset:
    """MNIST, uint8 (N, 1, 28, 28) and int64 (N,): 55,000 to train, 5,000 to choose by, 10,000 to test.

    Reads `folder`/MNIST/raw, which may be read-only; torchvision downloads the files if they are missing.
    Raises TrainingError if that fails, or if a file is damaged.
    """
    fitted, test = _read_mnist(folder, "train", least=_VALIDATION + 1), _read_mnist(folder, "t10k", least=1)
    return Dataset(
        name="mnist",
        train=Split(fitted.samples[:-_VALIDATION], fitted.targets[:-_VALIDATION]),
        validation=Split(fitted.samples[-_VALIDATION:], fitted.targets[-_VALIDATION:]),
        test=test,
    )


def digits() -> Dataset:
    """The 1,797 handwritten digits that come with scikit-learn, in the form of MNIST: 1,257 / 270 / 270.

    Their 8x8 counts of ink, 0 to 16 (Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI), are scaled
    to 20x20 and centred in 28x28, as large as MNIST's digits are; every class has its share of every split.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, needed here only
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    ink, labels = load_digits(return_X_y=True)
    samples = _as_mnist(torch.as_tensor(ink).reshape(-1, 1, 8, 8))
    targets = torch.as_tensor(labels, dtype=torch.int64)
    train, held_out = train_test_split(range(len(labels)), test_size=540, random_state=0, stratify=labels)
    validation, test = train_test_split(held_out, test_size=270, random_state=0, stratify=labels[held_out])
    splits = [Split(samples[indices], targets[indices]) for indices in (train, validation, test)]
    return Dataset(name="digits", train=splits[0], validation=splits[1], test=splits[2])


def parabola() -> Dataset:
    """y = x^2 + 0.2 U(0, 1) on [-1, 1], float32 (N, 1) both: 100 even points to train, fresh random ones held out.

    The noise alone has a variance of 0.2^2 / 12 = 0.0033: no fit has a smaller mean squared error.
    """
    held_out = [2 * torch.rand(_HELD_OUT, 1, generator=_seeded(seed)) - 1 for seed in (11, 12)]
    return Dataset(
        name="parabola",
        train=_on_parabola(torch.linspace(-1, 1, 100)[:, None], seed=0),
        validation=_on_parabola(held_out[0], seed=1),
        test=_on_parabola(held_out[1], seed=2),
    )


def clouds() -> Dataset:
    """Points float32 (N, 2) around (2, 2), label 0, and (-2, -2), label 1, standard deviation 1; 100 each to train.

    The line between the clouds is 2 sqrt(2) standard deviations away from both: no rule is right more often than
    0.9977 of the time.
    """
    return Dataset(
        name="clouds",
        train=_two_clouds(100, seed=0),
        validation=_two_clouds(_HELD_OUT // 2, seed=1),
        test=_two_clouds(_HELD_OUT // 2, seed=2),
    )


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Keep only the first `limit` training samples; None keeps all."""
    train = dataset.train
    return replace(dataset, train=Split(train.samples[:limit], train.targets[:limit]))


def _read_mnist(folder: Path, part: str, *, least: int) -> Split:
    pictures, labels = idx.find(folder, part)
    if pictures and labels:
        return idx.read(pictures, labels, least)
    source = import_torchvision("torchvision.datasets").MNIST
    try:
        images = source(folder, train=part == "train", download=True)
    except (RuntimeError, OSError, ValueError, AssertionError) as err:
        names = zip(idx.standard_names(part), (pictures, labels), strict=True)
        missing = " and ".join(name for name, path in names if path is None)
        raise TrainingError(
            f"the MNIST files are not readable: {missing} not found in the data folder and not downloaded; put the "
            "four train-*-ubyte and t10k-*-ubyte files (or .gz) into MNIST/raw of the data folder (TORCHLOOP_DATA or "
            "--data), "
            'or train on the digits that come with scikit-learn (--dataset digits; in a job, "dataset": "digits")',
        ) from err
    return Split(images.data[:, None].contiguous(), images.targets)


def _as_mnist(ink: Tensor) -> Tensor:
    """Scale and pad: (N, 1, 8, 8) of 0..16 -> uint8 (N, 1, 28, 28) of 0..255."""
    grey = torch.nn.functional.interpolate(ink.float() * (255 / 16), size=(20, 20), mode="bilinear")
    return torch.nn.functional.pad(grey.round().to(torch.uint8), (4, 4, 4, 4))


def _on_parabola(x: Tensor, *, seed: int) -> Split:
    return Split(x, x.square() + 0.2 * torch.rand(x.shape, generator=_seeded(seed)))


def _two_clouds(points: int, *, seed: int) -> Split:
    """Generate `points` samples of each label."""
    targets = torch.arange(2).repeat_interleave(points)
    centres = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])
    return Split(centres[targets] + torch.randn(2 * points, 2, generator=_seeded(seed)), targets)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
