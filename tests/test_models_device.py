from pathlib import Path

import pytest
import torch

from models import device


def test_auto_takes_an_accelerator_where_there_is_one() -> None:
    assert (
        torch.device(device.resolve("auto")).type
        == (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    )


def test_cpu_is_cpu() -> None:
    assert device.resolve("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu:cpu"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="use auto, cpu, cuda"):
        device.resolve(name)


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "cuda:all", "mps"])
def test_a_device_that_is_not_there_names_the_way_out(name: str) -> None:
    with pytest.raises(ValueError, match="not available here: use auto or cpu"):
        device.resolve(name)


@pytest.mark.parametrize(
    ("name", "visible", "files", "count"),
    [
        ("cpu", None, ["nvidia0", "nvidia1"], 0),
        ("auto", None, ["nvidia0", "nvidia1", "nvidiactl"], 2),
        ("cuda", None, ["nvidia0", "nvidia1"], 2),
        ("cuda:1", None, ["nvidia0", "nvidia1"], 1),
        ("cuda:all", None, ["nvidia0", "nvidia1"], 1),  # a worker trains on one
        ("cuda", "3", ["nvidia0", "nvidia3"], 1),
        ("auto", "", ["nvidia0"], 0),
        ("auto", "-1", ["nvidia0"], 0),
        ("auto", "GPU-a,GPU-b", ["nvidia0"], 2),
        ("auto", None, ["kfd"], 1),
        ("mps", None, [], 1),
    ],
)
def test_accelerators_are_counted_without_torch(
    name: str, visible: str | None, files: list[str], count: int, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).touch()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert device.accelerators(name, environ, tmp_path) == count
    assert device.cpus() >= 1


def test_all_devices_are_those_that_pytorch_finds_in_order() -> None:
    assert device.each("cuda:all", lambda: 3) == ["cuda:0", "cuda:1", "cuda:2"]
    assert device.each("cpu", lambda: 3) == ["cpu"]
    with pytest.raises(ValueError, match="PyTorch finds no CUDA device: use auto or cpu"):
        device.each("cuda:all", lambda: 0)
