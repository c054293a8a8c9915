"""Networks in PyTorch: the reference, and the backend for GPUs. Importing this module imports torch."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.coding import Coder
from models.eager import eager, plain, tensor
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Network, in_slices
from service.inference.pace import pace_of

log = logging.getLogger(__name__)
Replay = Callable[[], None]
Forward = Callable[..., Any]  # a network, compiled or not
Compiler = Callable[[nn.Module], Forward]
Capture = Callable[[Forward, Tensor], tuple[Replay, Tensor]]  # network, input -> (replay function, output tensor)


class EagerBackend:
    """PyTorch on one device. On CUDA, a forward pass is captured once per batch size as a CUDA graph, and replayed.

    `compiler` compiles a network; a network that cannot be compiled runs eagerly, with a warning.
    """

    def __init__(self, device: str, threads: int, max_batch: int, compiler: Compiler | None = None) -> None:
        self._compiler = compiler
        self._device = torch.device(device)
        self._max_batch = max_batch
        if self._device.type == "cpu":
            torch.set_num_threads(threads)

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record, _: Coder | None = None) -> Network:
        """See Backend."""
        network = state_dict.load(model, spec, path, record)[0].to(self._device)
        if spec.inputs or spec.outputs:
            run = eager(network, spec, self._device)
            return Network(run, in_slices(run, self._max_batch), "eager", pace=pace_of(spec.ragged_padding))
        forward = self._compiled(network, model, spec)
        run = plain(forward, self._device)
        if self._device.type == "cuda":
            run = self._recorded(forward, model, spec) or run
        return Network(run, in_slices(run, self._max_batch), "eager" if forward is network else "compile")

    def close(self) -> None:
        """See Backend. It has no threads."""

    def _compiled(self, network: nn.Module, model: str, spec: ModelSpec) -> Forward:
        if self._compiler is None:
            return network
        samples = spec.preprocess(spec.example)
        try:
            faster = self._compiler(network)
            for rows in (1, self._max_batch):  # compiles on the first call, and once more for all other sizes
                plain(faster, self._device)(np.resize(samples, (rows, *samples.shape[1:])))
        except RuntimeError as err:  # no C++ compiler, or a network that cannot be traced
            log.warning("run without torch.compile", extra={"model": model, "reason": str(err).partition("\n")[0]})
            return network
        return faster

    def _recorded(self, network: Forward, model: str, spec: ModelSpec) -> Callable[[Array], Array] | None:
        samples = torch.from_numpy(spec.preprocess(spec.example)).to(self._device)
        try:
            return Recorded(network, samples[:1], self._max_batch, cuda_graph)
        except RuntimeError as err:  # a network that synchronises with the host cannot be captured
            log.warning("run without a CUDA graph", extra={"model": model, "reason": str(err).partition("\n")[0]})
            return None


class Recorded:
    """Computes outputs of samples (N, ...) with the graph of the next power of two from N on; the rest is padding."""

    def __init__(self, network: Forward, sample: Tensor, max_batch: int, capture: Capture) -> None:
        self._recordings: list[tuple[Tensor, Replay, Tensor]] = []
        size = 1
        while True:
            given = sample.repeat(size, *(1 for _ in sample.shape[1:]))
            replay, outputs = capture(network, given)
            self._recordings.append((given, replay, outputs))
            if size >= max_batch:
                return
            size *= 2

    def __call__(self, samples: Array) -> Array:
        """Compute at most max_batch samples."""
        given, replay, outputs = next(one for one in self._recordings if len(one[0]) >= len(samples))
        with torch.inference_mode():
            given[: len(samples)].copy_(tensor(samples))
            replay()
            computed: Array = outputs[: len(samples)].to("cpu", copy=True).numpy()
        return computed


def compiled(network: nn.Module) -> Forward:
    """Compile a network with torch.compile, for batches of any size."""
    return torch.compile(network, dynamic=True)


def cuda_graph(network: Forward, given: Tensor) -> tuple[Replay, Tensor]:
    """Capture a CUDA graph of one forward pass, after the warm-up that its kernels need."""
    stream = torch.cuda.Stream(given.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(given.device))
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            network(given)
    torch.cuda.current_stream(given.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        outputs: Tensor = network(given)
    return graph.replay, outputs
