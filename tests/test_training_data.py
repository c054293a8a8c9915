"""Datasets: their splits are the same for ever, apart from each other, and raw."""

import gzip
import os
import re
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


STANDARD = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def dotted(name: str) -> str:
    """train-images.idx3-ubyte, as unpackers and dataset sites write it."""
    return name.replace("-idx", ".idx")


NAMINGS: dict[str, Callable[[str], str]] = {
    "dotted": dotted,
    "dotted twice": lambda name: dotted(name).replace("-ubyte", ".ubyte"),
    "underscores": lambda name: name.replace("-idx", "_idx").replace("-ubyte", "_ubyte"),
    "capitals": str.upper,
    "in folders of their names": lambda name: f"{name}/{name}",
    "in folders of other names": lambda name: f"archive/{dotted(name)}",
}


@pytest.mark.many
@pytest.mark.parametrize("packed", ["", ".gz", "packed without .gz", "unpacked with .gz"])
@pytest.mark.parametrize("naming", ["standard", *NAMINGS])
def test_mnist_is_found_under_its_other_names(naming: str, packed: str, small_mnist: Path) -> None:
    expected = data.mnist(small_mnist)
    raw = small_mnist / "MNIST" / "raw"
    content = {name: (raw / name).read_bytes() for name in STANDARD}
    for name in STANDARD:
        (raw / name).unlink()
    for name in STANDARD:
        path = raw / (NAMINGS.get(naming, str)(name) + (".gz" if packed.endswith(".gz") else ""))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content[name], 1) if packed in {".gz", "packed without .gz"} else content[name])
    dataset = data.mnist(small_mnist)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(dataset, split).samples, getattr(expected, split).samples)
        assert torch.equal(getattr(dataset, split).targets, getattr(expected, split).targets)


def test_the_standard_names_win(small_mnist: Path) -> None:
    for name in STANDARD:
        (small_mnist / "MNIST" / "raw" / dotted(name)).write_bytes(b"other")
        (small_mnist / "MNIST" / "raw" / f"{name}.gz").write_bytes(b"other")
    assert len(data.mnist(small_mnist).test) == 30


def idx_file(magic: int, *sizes: int, values: bytes) -> bytes:
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + values


LABELS, PICTURES = bytes(5_100), bytes(5_100 * 784)
PAGE = b"<!DOCTYPE html><title>404</title>"
WRONG: list[tuple[str, bytes, str]] = [
    ("train-images-idx3-ubyte", b"", "not an IDX file of pictures: it begins with the bytes none"),
    ("train-images-idx3-ubyte", b"\0\0", "not an IDX file of pictures: it begins with the bytes 0000"),
    ("train-images-idx3-ubyte", PAGE, "not an IDX file of pictures: it begins with the bytes 3c21444f"),
    ("train-labels-idx1-ubyte", PAGE, "not an IDX file of labels: it begins with the bytes 3c21444f"),
    ("train-images-idx3-ubyte", idx_file(0x801, 5_100, values=LABELS), "not an IDX file of pictures: it holds labels"),
    ("train-labels-idx1-ubyte", idx_file(0x803, 1, 28, 28, values=LABELS), "not an IDX file of labels: it holds pict"),
    ("train-images-idx3-ubyte", idx_file(0xD03, 5_100, 28, 28, values=PICTURES), "begins with the bytes 00000d03"),
    ("train-images-idx3-ubyte", idx_file(0x804, 5_100, 1, 28, 28, values=PICTURES), "begins with the bytes 00000804"),
    ("train-images-idx3-ubyte", idx_file(0x803, 5_100, 28, 28, values=b"")[:12], "cut short: 12 of 16 bytes"),
    (
        "train-images-idx3-ubyte",
        idx_file(0x803, 5_100, 28, 28, values=PICTURES[1:]),
        "cut short: 3,998,415 of 3,998,416",
    ),
    ("train-images-idx3-ubyte", idx_file(0x803, 2**31, 28, 28, values=PICTURES), "cut short: 3,998,416 of"),
    ("train-images-idx3-ubyte", idx_file(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1, values=PICTURES), "cut short: "),
    ("train-labels-idx1-ubyte", idx_file(0x801, 5_100, values=LABELS[1:]), "cut short: 5,107 of 5,108 bytes"),
    (
        "train-images-idx3-ubyte",
        idx_file(0x803, 5_100, 28, 28, values=PICTURES + b"x"),
        "3,998,417 bytes, but 3,998,416",
    ),
    ("train-images-idx3-ubyte", idx_file(0x803, 5_100, 32, 32, values=bytes(5_100 * 1024)), "pictures of 32x32 pixels"),
    ("train-images-idx3-ubyte", idx_file(0x803, 5_100, 784, 1, values=PICTURES), "pictures of 784x1 pixels"),
    ("train-labels-idx1-ubyte", idx_file(0x801, 5_099, values=LABELS[1:]), "5,099 labels; they belong together"),
    ("train-labels-idx1-ubyte", idx_file(0x801, 6_000, values=bytes(6_000)), "6,000 labels; they belong together"),
    ("train-labels-idx1-ubyte", idx_file(0x801, 0, values=b""), "0 labels; they belong together"),
    (
        "train-labels-idx1-ubyte",
        idx_file(0x801, 5_100, values=LABELS[1:] + b"\n"),
        "holds the label 10; MNIST has 0 to 9",
    ),
    ("train-images-idx3-ubyte", gzip.compress(PICTURES, 1)[:-9], "damaged or cut short: it cannot be unpacked"),
    (
        "train-images-idx3-ubyte",
        gzip.compress(PICTURES, 1)[:-4] + b"1234",
        "damaged or cut short: it cannot be unpacked",
    ),
    ("train-images-idx3-ubyte", b"\x1f\x8b\x08", "damaged or cut short: it cannot be unpacked"),
    ("train-images-idx3-ubyte", b"\x1f\x8bnonsense" * 9, "damaged or cut short: it cannot be unpacked"),
    ("t10k-images-idx3-ubyte", PAGE, "not an IDX file of pictures"),
    ("t10k-images-idx3-ubyte", idx_file(0x803, 0, 28, 28, values=b""), "holds 0 pictures, but"),
    ("t10k-labels-idx1-ubyte", idx_file(0x801, 29, values=bytes(29)), "29 labels; they belong together"),
]


@pytest.mark.parametrize(("name", "content", "words"), WRONG)
def test_a_wrong_file_of_mnist_is_named_with_its_fault(
    name: str, content: bytes, words: str, small_mnist: Path
) -> None:
    (small_mnist / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(TrainingError, match=re.escape(words)) as refused:
        data.mnist(small_mnist)
    assert name in str(refused.value)
    assert str(small_mnist) not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [*range(20), 1_000, 3_998_415])
def test_a_file_of_mnist_that_is_cut_short_is_named(length: int, small_mnist: Path) -> None:
    os.truncate(small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte", length)
    with pytest.raises(TrainingError, match=r"^train-images-idx3-ubyte (is cut short|is not an IDX file)"):
        data.mnist(small_mnist)


@pytest.mark.parametrize("count", [0, 1, 10, 4_999, 5_000])
def test_too_few_training_pictures_are_refused(count: int, small_mnist: Path) -> None:
    raw = small_mnist / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").write_bytes(idx_file(0x803, count, 28, 28, values=bytes(784 * count)))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx_file(0x801, count, values=bytes(count)))
    with pytest.raises(TrainingError, match=rf"^train-images-idx3-ubyte holds {count:,} pictures only; at least 5,001"):
        data.mnist(small_mnist)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_of_mnist_that_may_not_be_read_is_named(small_mnist: Path) -> None:
    (small_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte").chmod(0)
    with pytest.raises(TrainingError, match=r"^train-images-idx3-ubyte cannot be read \(Permission denied\)"):
        data.mnist(small_mnist)


@pytest.mark.parametrize("missing", STANDARD)
def test_a_missing_file_of_mnist_is_named(missing: str, small_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_torchvision("torchvision.datasets").MNIST, "mirrors", [])
    (small_mnist / "MNIST" / "raw" / missing).unlink()
    with pytest.raises(
        TrainingError, match=f"^the MNIST files are not readable: {missing} not found in the data folder"
    ):
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
