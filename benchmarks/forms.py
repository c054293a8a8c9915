"""Numeric forms of networks: CPU time of a sample in one thread, and what each form changes in the answers.

The networks are the shipped one for MNIST and a ResNet-18 with random weights. Each form runs in turn with ONNX Runtime
in float32, and a ratio is taken within each turn. What changes is counted on the validation split, by which the gate
decides, and on the test split, which only reports.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from benchmarks import Options
from benchmarks.report import Aim, table
from benchmarks.resnet import SPEC as RESNET
from benchmarks.resnet_network import ResNet18
from models.catalog import PRETRAINED, specs
from models.checkpoints import openvino_session, state_dict
from models.checkpoints.onnx_export import export
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.outputs import probabilities
from models.spec import Array
from training.data import mnist as mnist_data
from training.forms import changes
from training.quantisation import quantised
from training.recipe import Split, TrainingError

MISSING = '  skipped: pip install "torchloop[openvino]"'
_SIZES = {"mnist": (1, 4, 16, 64), "resnet": (1, 4)}
_CALLS_S = 0.2  # how long each form is called in a turn
_AIMS = {("mnist", 64): 1.4, ("resnet", 1): 1.8, ("resnet", 4): 1.8}
Run = Callable[[Array], Array]
Times = Mapping[tuple[str, int], list[float]]  # (form, samples of a batch) -> s a sample, in each turn


def main(options: Options) -> str:
    """Return the tables, or a message if OpenVINO is missing."""
    if not openvino_session.forms():
        return MISSING
    try:
        splits = mnist_data(options.data)
    except TrainingError as err:
        return f"  skipped: {err}"
    known, noise = _mnist(splits.train), np.random.default_rng(0).normal(size=(64, 3, 224, 224)).astype(np.float32)
    samples = {"mnist": splits.validation.samples.numpy(), "resnet": noise}
    networks = {"mnist": known, "resnet": _resnet(noise)}
    taken = {name: _times(_runs(networks[name]), _SIZES[name], samples[name], options.rounds) for name in networks}
    return "\n\n".join(
        [
            *(_time_table(name, times) for name, times in taken.items()),
            _changes(known, splits.validation, splits.test),
            _aims(taken),
        ]
    )


def _resnet(samples: Array) -> Exported:
    torch.manual_seed(0)
    exported = export(RESNET, ResNet18().eval())
    return replace(exported, quantised=quantised(exported.onnx, samples))


def _mnist(train: Split) -> Exported:
    spec = specs()["mnist"]
    exported = export(spec, state_dict.load("mnist", spec, PRETRAINED / "mnist.pt")[0])
    return replace(exported, quantised=quantised(exported.onnx, train.samples.numpy()))


def _runs(exported: Exported) -> dict[str, Run]:
    """Return the functions that compute a network in each form, in one thread."""
    runs: dict[str, Run] = {"ONNX Runtime, fp32": open_session(exported.onnx, 1)}
    for form in openvino_session.forms():
        onnx = exported.quantised if form == "int8" else exported.onnx
        if onnx:
            runs[f"OpenVINO, {form}"] = openvino_session.open_form(onnx, form, 1)
    return runs


def _times(runs: Mapping[str, Run], sizes: tuple[int, ...], samples: Array, rounds: int) -> Times:
    found: dict[tuple[str, int], list[float]] = {}
    for size in sizes:
        batch = np.ascontiguousarray(samples[:size])
        for run in runs.values():
            run(batch)
        for _ in range(rounds):
            for name, run in runs.items():
                found.setdefault((name, size), []).append(_cpu_s(lambda run=run, batch=batch: run(batch)) / size)  # type: ignore[misc]
    return found


def _cpu_s(function: Callable[[], object]) -> float:
    """Return the CPU time of one call, in s."""
    calls, began, clock = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - clock < _CALLS_S:
        function()
        calls += 1
    return (time.process_time() - began) / calls


def _ratios(times: Times, form: str, size: int) -> list[float]:
    pairs = zip(times["ONNX Runtime, fp32", size], times[form, size], strict=True)
    return [plain / fast for plain, fast in pairs]


def _time_table(name: str, times: Times) -> str:
    sizes = sorted({size for _, size in times})
    rows = []
    for form in dict.fromkeys(form for form, _ in times):
        middle = [f"{median(times[form, size]) * 1e6:.1f}" for size in sizes]
        rows.append([form, *middle, *(f"{median(_ratios(times, form, size)):.2f}" for size in sizes)])
    return table(
        [f"{name}: µs a sample", *(f"batch {size}" for size in sizes), *(f"times at {size}" for size in sizes)], rows
    )


def _changes(exported: Exported, validation: Split, test: Split) -> str:
    runs = _runs(exported)
    plain = runs.pop("ONNX Runtime, fp32")
    rows = []
    for form, run in runs.items():
        cells = []
        for split in (validation, test):
            changed, largest = changes(plain, run, probabilities, split.samples.numpy())
            cells += [f"{changed} of {len(split)}", f"{largest:.4f}"]
        rows.append([form, *cells])
    head = ["mnist: labels changed, and largest change of a probability", "validation", "", "test", ""]
    return table(head, rows)


def _aims(taken: Mapping[str, Times]) -> str:
    rows = []
    for (name, size), aim in _AIMS.items():
        times = taken[name]
        best = max((median(_ratios(times, form, size)) for form, at in times if at == size), default=0.0)
        what = f"{name}, batch {size}: fastest form / ONNX Runtime in float32"
        rows.append(Aim(what, [best], aim, at_least=True).cells())
    return table(["aim", "reached", "", ""], rows)
