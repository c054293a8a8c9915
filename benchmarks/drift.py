"""Drift: what counting costs, and how often windows without and with a shift are called drift.

Three services run beside each other: one counts, the others have a checkpoint without a reference, and do not.
wrk sends the same picture to each in turn; the figure is the server's CPU time per request, as a ratio of neighbouring
turns. That of the two that do not count shows the noise of the machine.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from benchmarks import Options, load
from benchmarks.drift_windows import above_a_fixed_limit, above_its_limit, has_drifted, rate
from benchmarks.report import Aim, table
from benchmarks.servers import SEVEN, cpu_s
from benchmarks.service_process import running_service
from models import catalog, classifier, mnist
from models.checkpoints.record import verify
from models.drift.reference import DriftReference, counted
from models.spec import Array, ModelSpec

_CONNECTIONS = 64
_MOST_COST = 1.01
_SHIFT = 0.3  # standard deviations
_SIZES = (100, 200, 400, 500, 1000, 5000)


def main(options: Options) -> str:
    """Return the tables."""
    cost = _cost(options.rounds, options.seconds) if load.is_installed() else load.MISSING
    parts = [
        f"  CPU per request of mnist with counts, as a multiple of that without, {options.rounds} rounds",
        cost,
        "  counting one request in the thread, µs",
        table(["", "samples", "µs"], list(_counting())),
        "  share of windows that are called drift (PSI), without a shift and with one of 0.3 standard deviations",
        table(["samples", "PSI > 0.1", "shift", "above its limit", "shift", "drift", "shift"], list(_simulated())),
    ]
    return "\n\n".join(parts)


def _cost(rounds: int, seconds: int) -> str:
    """Compare a service that counts, and one that does not, with another one that does not."""
    ratios: dict[str, list[float]] = {"CPU per request": [], "the same of two without counts": []}
    rates = []
    with (
        _service(has_reference=True) as counting,
        _service(has_reference=False) as plain,
        _service(has_reference=False) as other,
    ):
        for turn in range(rounds + 1):
            order = (counting, plain, other) if turn % 2 else (other, plain, counting)
            spent = {one: one.visit(seconds) for one in order}
            if turn:  # the first one warms them up
                for words, one in zip(ratios, (counting, other), strict=True):
                    ratios[words].append(spent[one][0] / spent[plain][0])
                rates.append(spent[counting][1] / spent[plain][1])
    rows = [Aim("CPU per request, median", [median(ratios["CPU per request"])], _MOST_COST).cells()]
    rows += [Aim(f"{words}, all rounds", values).cells() for words, values in ratios.items()]
    return table(["", "ratio", "aim", "met"], [*rows, Aim("requests per second, all rounds", rates).cells()])


class _Service:
    """One running service."""

    def __init__(self, url: str, pid: int) -> None:
        self._url, self._process = url, psutil.Process(pid)

    def visit(self, seconds: int) -> tuple[float, float]:
        """Return CPU seconds per request, and requests per second."""
        before = cpu_s(self._process)
        seen = load.send(self._url, SEVEN, ("/predict/mnist",), connections=_CONNECTIONS, seconds=seconds)
        return (cpu_s(self._process) - before) / max(1, seen.requests), seen.rate


@contextmanager
def _service(*, has_reference: bool) -> Iterator[_Service]:
    """Start a service with a copy of the shipped checkpoint of mnist, whose record has a reference or not."""
    with TemporaryDirectory() as folder:
        _make_project(Path(folder), has_reference=has_reference)
        with running_service({"TORCHLOOP_PROJECT": folder}) as (url, process):
            yield _Service(url, process.pid)


def _make_project(folder: Path, *, has_reference: bool) -> None:
    for name in ("models", "training", "pretrained"):
        (folder / name).mkdir()
    shutil.copy(catalog.PRETRAINED / "mnist.pt", folder / "pretrained")
    record = json.loads((catalog.PRETRAINED / "mnist.json").read_text())
    (folder / "pretrained" / "mnist.json").write_text(
        json.dumps({**record, "drift": record["drift"] if has_reference else {}})
    )


def _counting() -> Iterator[list[str]]:
    rng = np.random.default_rng(0)
    for name, spec, make in (
        ("rows of 2 numbers", classifier.SPEC, lambda count: rng.normal(size=(count, 2)).astype(np.float32)),
        ("pictures of 28x28", mnist.SPEC, lambda count: rng.integers(0, 256, (count, 1, 28, 28)).astype(np.uint8)),
    ):
        model = "classifier" if spec is classifier.SPEC else "mnist"
        reference = DriftReference.of_json(verify(model, catalog.PRETRAINED / f"{model}.pt").drift)
        for count in (1, 25, 64):
            yield [name, str(count), f"{_spent_us(spec, reference, make, count):.0f}"]


def _spent_us(spec: ModelSpec, reference: DriftReference, make: Callable[[int], Array], count: int) -> float:
    """Return the least CPU time of some calls."""
    samples = make(count)
    labels = 2 if spec is classifier.SPEC else 10
    values = np.full((count, labels), 1 / labels, np.float32)
    spent = []
    for _ in range(200):
        began = time.thread_time()
        counted(spec, reference, samples, values)
        spent.append(time.thread_time() - began)
    return 1e6 * min(spent)


def _simulated() -> Iterator[list[str]]:
    for samples in _SIZES:
        says = (above_a_fixed_limit, above_its_limit, has_drifted)
        yield [str(samples), *(f"{rate(samples, shift, one):.2%}" for one in says for shift in (0.0, _SHIFT))]
