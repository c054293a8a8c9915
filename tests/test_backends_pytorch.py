"""Batches by recordings of fixed sizes. Where there is no GPU to record, the network is called anew in their place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.checkpoints.record import read_verified
from service.inference.backends.backend import Network
from service.inference.backends.pytorch import Compiler, EagerBackend, Forward, Recorded, Replay, cuda_graph
from tests.fakes import LINE, Line, save_line


def called_anew(network: Forward, given: Tensor) -> tuple[Replay, Tensor]:
    """As cuda_graph: what it returns first computes the outputs of what stands in `given` by then, in place."""
    with torch.inference_mode():
        outputs = network(given).clone()

    def replay() -> None:
        outputs.copy_(network(given))

    return replay, outputs


@pytest.mark.parametrize("max_batch", [1, 6, 8])
def test_each_sample_gets_its_own_answer_at_every_batch_size(max_batch: int) -> None:
    run = Recorded(Line(), torch.zeros(1, 1), max_batch, called_anew)
    for rows in range(1, max_batch + 1):
        samples = np.random.default_rng(rows).random((rows, 1), np.float32)
        np.testing.assert_allclose(run(samples), 2 * samples + 1, rtol=1e-6)


def test_an_answer_outlives_the_next_one() -> None:
    run = Recorded(Line(), torch.zeros(1, 1), 4, called_anew)
    first = run(np.array([[1.0]], np.float32))
    run(np.array([[5.0]], np.float32))
    np.testing.assert_array_equal(first, [[3.0]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_answers_as_the_network_does() -> None:
    network = Line().to("cuda")
    run = Recorded(network, torch.zeros(1, 1, device="cuda"), 8, cuda_graph)
    samples = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(run(samples), 2 * samples + 1, rtol=1e-6)


def loaded(folder: Path, compiler: Compiler) -> Network:
    path = save_line(folder)
    return EagerBackend("cpu", 1, 8, compiler).load("line", LINE, path, read_verified("line", path)[1])


@pytest.mark.slow
def test_a_compiled_network_answers_as_the_network_does_at_every_batch_size(tmp_path: Path) -> None:
    def traced(network: nn.Module) -> Forward:
        return torch.compile(network, dynamic=True, backend="eager")  # all of it but the C++ compiler

    network = loaded(tmp_path, traced)
    assert network.backend == "compile"
    for rows in (1, 3, 8):
        samples = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
        np.testing.assert_allclose(network.run(samples), 2 * samples + 1, rtol=1e-6)


def test_a_network_that_cannot_be_compiled_is_run_as_it_is_with_a_warning(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: nn.Module) -> Forward:
        raise RuntimeError("no C++ compiler\nand a long story")

    network = loaded(tmp_path, broken)
    assert network.backend == "eager"
    assert [(record.message, vars(record)["reason"]) for record in caplog.records] == [
        ("run without torch.compile", "no C++ compiler"),
    ]
