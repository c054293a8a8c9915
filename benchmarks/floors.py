"""Lower bounds: CPU time of each step of a prediction by itself, in one thread of this process."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import orjson
import torch
from PIL import Image

from benchmarks.report import table
from benchmarks.servers import SEVEN
from models.catalog import PRETRAINED
from models.networks import MnistCNN
from models.spec import Array

_SIZES = (1, 16, 64)
_MEASURED_S = 0.3
_DECODE, _JSON, _FORWARD = "decode a PNG with Pillow", "JSON of one answer with orjson", "ONNX Runtime, batch"


def floors() -> dict[str, float]:
    """Measure the CPU time of each step, in µs per request."""
    rng = np.random.default_rng(0)
    answer = {"label": 7, "probability": 0.5, "probabilities": rng.random(10, dtype=np.float32)}
    body = {"model": "mnist", "version": 1, "predictions": [answer]}
    found = {
        _DECODE: _cpu_us(lambda: np.asarray(Image.open(BytesIO(SEVEN.content)))),
        _JSON: _cpu_us(lambda: orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)),
    }
    for size in _SIZES:
        found[f"{_FORWARD} {size}"] = _cpu_us(_run(session(1), rng, size)) / size
    for size in _SIZES:
        found[f"eager PyTorch, batch {size}"] = _eager(rng, size) / size
    return found


def total(found: Mapping[str, float], bare_us: float) -> float:
    """Return the sum of server, decode, JSON, and the cheapest forward pass, in µs."""
    forward = min(value for name, value in found.items() if name.startswith(_FORWARD))
    return bare_us + found[_DECODE] + found[_JSON] + forward


def table_of(rounds: Sequence[Mapping[str, float]], bare_us: float) -> str:
    """Return the table of medians, and their sum."""
    middle = {name: median(found[name] for found in rounds) for name in rounds[0]}
    rows = [["bare ASGI application on uvicorn, at 64 connections", f"{bare_us:.0f}"]]
    rows += [[name, f"{value:.1f}"] for name, value in middle.items()]
    rows.append(["sum of server, decode, JSON and the cheapest ONNX Runtime", f"{total(middle, bare_us):.0f}"])
    return table(["", "µs"], rows)


@cache
def session(threads: int) -> Any:
    """Return an ONNX Runtime session of the network with the shipped weights."""
    network = MnistCNN().eval()
    network.load_state_dict(torch.load(PRETRAINED / "mnist.pt", weights_only=True))
    example = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    with TemporaryDirectory() as folder:
        path = f"{folder}/mnist.onnx"
        with warnings.catch_warnings():  # from the TorchScript exporter, which needs no further packages
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                input_names=["samples"],
                dynamic_axes={"samples": {0: "N"}},
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(network: Any, rng: np.random.Generator, size: int) -> Callable[[], object]:
    samples: Array = rng.integers(0, 256, (size, 1, 28, 28), dtype=np.uint8)
    return lambda: network.run(None, {"samples": samples})


def _eager(rng: np.random.Generator, size: int) -> float:
    network = MnistCNN().eval()
    samples = torch.from_numpy(rng.integers(0, 256, (size, 1, 28, 28), dtype=np.uint8))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _cpu_us(lambda: network(samples))
    finally:
        torch.set_num_threads(threads)


def _cpu_us(function: Callable[[], object]) -> float:
    """Measure the CPU time of one call over all threads of this process, in µs."""
    function()
    calls, began, clock = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - clock < _MEASURED_S:
        for _ in range(10):
            function()
        calls += 10
    return (time.process_time() - began) / calls * 1e6
