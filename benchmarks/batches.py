"""Throughput of requests with 256 pictures: this service, LitServe, and ONNX Runtime without a server."""

import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageDraw

from benchmarks import load
from benchmarks.floors import session
from benchmarks.load import Body, LoadError
from benchmarks.report import table
from benchmarks.servers import Server, started
from models.catalog import PRETRAINED
from models.networks import MnistCNN
from models.spec import Array

NPY = "application/x-npy"
SIZE = 256
THREADS = sorted({1, os.cpu_count() or 1})
_SERVICE, _SERVICE_NPY = "torchloop, JSON answer", "torchloop, .npy answer"
_SURE = 0.9  # minimum probability, so that rounding in another runtime changes no label


@cache
def drawings(count: int) -> tuple[Array, tuple[int, ...]]:
    """Return pictures uint8 (N, 28, 28) of three random strokes, and the labels that the reference network predicts."""
    network = MnistCNN().eval()
    network.load_state_dict(torch.load(PRETRAINED / "mnist.pt", weights_only=True))
    rng = np.random.default_rng(0)
    kept: list[Array] = []
    labels: list[int] = []
    while len(labels) < count:
        candidates = np.stack([_strokes(rng) for _ in range(512)])
        with torch.inference_mode():
            best = network(torch.from_numpy(candidates[:, None])).softmax(dim=1).max(dim=1)
        sure = best.values.numpy() > _SURE
        kept.append(candidates[sure])
        labels += best.indices.numpy()[sure].tolist()
    return np.concatenate(kept)[:count], tuple(labels[:count])


def _strokes(rng: np.random.Generator) -> Array:
    page = Image.new("L", (56, 56))
    ImageDraw.Draw(page).line([tuple(point) for point in rng.integers(10, 46, (4, 2)).tolist()], fill=255, width=5)
    return np.asarray(page.resize((28, 28), Image.Resampling.BOX))


def npy_body(count: int, accept: str = "application/json") -> Body:
    """Return a body with `count` drawings as one .npy file."""
    pictures, labels = drawings(count)
    file = BytesIO()
    np.save(file, pictures, allow_pickle=False)
    return Body(content=file.getvalue(), media_type=NPY, labels=labels, accept=accept)


def through(server: Server, seconds: int) -> dict[str, float]:
    """Measure pictures per second of a server, one request at a time. Raises LoadError if a response is wrong."""
    if server.name == "litserve":
        pictures, labels = drawings(SIZE)
        content = json.dumps({"samples": base64.b64encode(pictures.tobytes()).decode()}).encode()
        bodies = {"litserve": replace(server.body, content=content, labels=labels)}
    else:
        bodies = {_SERVICE: npy_body(SIZE), _SERVICE_NPY: npy_body(SIZE, NPY)}
    found = {}
    with started(server) as running:
        running.settle()
        for name, body in bodies.items():
            load.send(running.url, body, (server.path,), connections=1, seconds=1)
            seen = load.send(running.url, body, (server.path,), connections=1, seconds=seconds)
            if seen.bad:
                raise LoadError(f"{seen.bad} of {seen.requests} answers to a batch were wrong")
            found[name] = seen.rate * SIZE
    return found


def bare(seconds: int) -> dict[str, float]:
    """Measure pictures per second of ONNX Runtime, on one thread and on all cores."""
    samples = drawings(SIZE)[0][:, None]
    found = {}
    for threads in THREADS:
        network = session(threads)
        network.run(None, {"samples": samples})
        calls, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds / 2:
            network.run(None, {"samples": samples})
            calls += 1
        found[_bare(threads)] = calls * SIZE / taken
    return found


def to_bare(found: Mapping[str, float], threads: int) -> float:
    """Return the rate with .npy bodies / the rate of ONNX Runtime on `threads` threads. Raises KeyError."""
    return found[_SERVICE_NPY] / found[_bare(threads)]


def to_litserve(found: Mapping[str, float]) -> float:
    """Return the rate with JSON bodies / the rate of LitServe, two processes each. Raises KeyError."""
    return found[_SERVICE] / found["litserve"]


def table_of(rounds: Sequence[Mapping[str, float]], faults: Mapping[str, str]) -> str:
    """Return the table of medians, each with its ratios to ONNX Runtime."""
    names = list(dict.fromkeys(name for found in rounds for name in found))
    rows = []
    for name in names:
        seen = [found for found in rounds if name in found]
        ratios = [median(found[name] / found[_bare(threads)] for found in seen) for threads in THREADS]
        rows.append([name, f"{median(found[name] for found in seen):.0f}", *(f"{ratio:.2f}" for ratio in ratios)])
    rows += [[name, faults[name]] for name in ("torchloop", "litserve") if name in faults]
    return table(["", "pictures/s", *(f"/ {_bare(threads)}" for threads in THREADS)], rows)


def _bare(threads: int) -> str:
    return f"ONNX Runtime alone, {threads} thread{'s' if threads != 1 else ''}"
