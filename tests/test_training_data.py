"""Datasets: their splits are the same for ever, apart from each other, and raw."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import data
from training.recipe import Dataset, TrainingError
from training.torchvision_shim import import_torchvision

MADE: list[Callable[[], Dataset]] = [data.digits, data.parabola, data.clouds]


def write_idx(path: Path, values: torch.Tensor) -> None:
    header = struct.pack(f">HBB{values.dim()}I", 0, 8, values.dim(), *values.shape)
    path.write_bytes(header + values.numpy().tobytes())


@pytest.fixture
def small_mnist(tmp_path: Path) -> Path:
    """A data folder in torchvision's layout with 5,100 training and 30 test images; pixel (0, 0) tells their place."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 5_100), ("t10k", 30)):
        images = torch.zeros(count, 28, 28, dtype=torch.uint8)
        images[:, 0, 0] = (torch.arange(count) % 251).to(torch.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", (torch.arange(count) % 10).to(torch.uint8))
    return tmp_path


def rows(split: torch.Tensor) -> set[bytes]:
    return {sample.numpy().tobytes() for sample in split}


def test_mnist_is_read_from_uncompressed_files_and_the_folder_is_left_alone(small_mnist: Path) -> None:
    before = sorted(small_mnist.rglob("*"))
    dataset = data.mnist(small_mnist)
    assert sorted(small_mnist.rglob("*")) == before
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [100, 5_000, 30]
    assert dataset.train.samples.shape[1:] == (1, 28, 28)
    assert dataset.train.samples.dtype == torch.uint8
    assert dataset.train.targets.dtype == torch.int64


def test_the_last_training_images_of_mnist_are_held_out(small_mnist: Path) -> None:
    dataset = data.mnist(small_mnist)
    places = dataset.validation.samples[:, 0, 0, 0]
    assert torch.equal(places, (torch.arange(100, 5_100) % 251).to(torch.uint8))
    assert torch.equal(dataset.validation.targets, torch.arange(100, 5_100) % 10)


def test_without_files_and_without_network_both_ways_out_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_torchvision("torchvision.datasets").MNIST, "mirrors", [])
    with pytest.raises(
        TrainingError,
        match=r"MNIST/raw of the data folder .*TORCHLOOP_DATA.*--dataset digits",
    ) as refused:
        data.mnist(tmp_path)
    assert str(tmp_path) not in str(refused.value)


def test_a_damaged_file_of_mnist_is_reported_like_a_missing_one(small_mnist: Path) -> None:
    file = small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    os.truncate(file, 1_000)
    with pytest.raises(TrainingError, match="readable"):
        data.mnist(small_mnist)


@pytest.mark.parametrize("made", MADE)
def test_the_data_are_the_same_whatever_drew_random_numbers_before(made: Callable[[], Dataset]) -> None:
    torch.manual_seed(1)
    first = made()
    torch.manual_seed(2)
    second = made()
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(first, split).samples, getattr(second, split).samples)
        assert torch.equal(getattr(first, split).targets, getattr(second, split).targets)


def test_no_digit_is_in_two_splits() -> None:
    dataset = data.digits()
    parts = [rows(split.samples) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1_797


def test_digits_look_like_mnist_and_every_class_has_its_share() -> None:
    dataset = data.digits()
    for split, count in ((dataset.train, 1_257), (dataset.validation, 270), (dataset.test, 270)):
        assert split.samples.shape == (count, 1, 28, 28)
        assert split.samples.dtype == torch.uint8
        assert split.samples.max() == 255
        assert split.samples[:, :, :4].max() == 0, "no ink in the margin"
        shares = split.targets.bincount(minlength=10) / count
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_the_parabola_is_as_noisy_as_it_says() -> None:
    dataset = data.parabola()
    assert dataset.train.samples.shape == dataset.train.targets.shape == (100, 1)
    for split in (dataset.train, dataset.validation, dataset.test):
        noise = split.targets - split.samples.square()
        assert split.samples.abs().max() <= 1
        assert noise.min() >= 0
        assert noise.max() <= 0.2
    assert noise.var().item() == pytest.approx(0.2**2 / 12, rel=0.03)


def test_the_clouds_lie_where_they_should() -> None:
    dataset = data.clouds()
    assert dataset.train.targets.bincount().tolist() == [100, 100]
    for label, centre in ((0, 2.0), (1, -2.0)):
        points = dataset.test.samples[dataset.test.targets == label]
        assert points.mean(dim=0).tolist() == pytest.approx([centre, centre], abs=0.05)
        assert points.std(dim=0).tolist() == pytest.approx([1, 1], abs=0.05)


def test_a_limit_shortens_the_training_split_only() -> None:
    whole = data.clouds()
    part = data.limited(whole, 7)
    assert torch.equal(part.train.samples, whole.train.samples[:7])
    assert torch.equal(part.train.targets, whole.train.targets[:7])
    assert part.test is whole.test
    assert len(data.limited(whole, None).train) == len(whole.train)
    assert len(data.limited(whole, 10_000).train) == len(whole.train)
