import pytest
import torch

from models import device


def test_auto_takes_an_accelerator_where_there_is_one() -> None:
    assert (
        torch.device(device.resolve("auto")).type
        == (torch.accelerator.current_accelerator() or torch.device("cpu")).type
    )


def test_cpu_is_cpu() -> None:
    assert device.resolve("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu:cpu"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="use auto, cpu, cuda"):
        device.resolve(name)


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="needs a machine without a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_names_the_way_out(name: str) -> None:
    with pytest.raises(ValueError, match="not available here: use auto or cpu"):
        device.resolve(name)
