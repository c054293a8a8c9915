"""Parity of an exported network with PyTorch: the samples that both compute, and the comparison of their outputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.coding import Coder, example_samples
from models.errors import InvalidInput
from models.padding import buckets, stacked
from models.random_samples import random_sample
from models.samples import Batch, Columns, all_finite, resized
from models.spec import Array, Entry, ModelSpec

TOLERANCE = 1e-4  # of the largest output: float32 sums in another order differ by 1e-6, a wrong export by much more
_SIZES = (1, 2, 3, 7)  # of the random batches
_UNBOUNDED = 1e9  # a bound beyond it says nothing about the numbers that the network is made for
_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)
Run = Callable[[Any], Any]  # samples as the network takes them -> outputs; N of each, a Batch


class DisagreementError(Exception):
    """The export cannot replace the network; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One batch: samples (N, ...) as the network takes them, and the outputs (N, ...) of the PyTorch network.

    Named ones are Columns: the keyword arguments of the network, padded, and all of its outputs.
    """

    samples: Any
    outputs: Any


def bounds(entry: Entry, example: Array) -> tuple[float, float]:
    """Return the lowest and highest number of random entries: the entry's bounds, or else the example's range.

    Floating-point numbers without bounds go to twice the largest of the example, and at least from -1 to 1.
    """
    if entry.dtype.kind == "f":
        reach = max(1.0, 2 * float(np.abs(example).max()))
        low, high = -reach, reach
    else:  # codes without bounds: those of the example exist
        low, high = float(example.min()), float(example.max())
    return (
        entry.low if abs(entry.low) < _UNBOUNDED else min(low, entry.high),
        entry.high if abs(entry.high) < _UNBOUNDED else max(high, entry.low),
    )


def random_entries(entry: Entry, example: Array, count: int, generator: np.random.Generator) -> Array:
    """Return `count` entries: uniform, ending in zeros (padding), all low, all high, shuffled from the example, ..."""
    low, high = bounds(entry, example)
    rows = generator.uniform(low, high, (count, *entry.shape))
    for row in range(count):
        flat = rows[row].reshape(-1)
        match (row + count) % 5:
            case 1 if flat.size > 1:
                flat[generator.integers(1, flat.size) :] = min(max(0.0, low), high)
            case 3:
                flat[:] = low
            case 4:
                flat[:] = high
            case 0:
                flat[:] = generator.permutation(example[row % len(example)].reshape(-1))
    if entry.dtype.kind != "f":
        rows = np.clip(np.rint(rows), low, high)
    return rows.astype(entry.dtype)


def short_batches(spec: ModelSpec, coder: Coder | None = None) -> list[Batch]:
    """Return the spec's example as samples, three at once and one alone. Cheap enough for every load."""
    samples = example_samples(spec, coder)
    return [_bucket(spec, resized(samples, 3)), _bucket(spec, resized(samples, 1))]


def random_batches(spec: ModelSpec, sizes: Sequence[int] = _SIZES, coder: Coder | None = None) -> Iterator[Any]:
    """Yield samples (N, ...) from random entries, the same in each run, in several batch sizes.

    The entries of a size that the spec's preprocessing refuses are replaced with the example. Random samples of named
    inputs have bounds, defaults and several lengths; a batch of them may be smaller, see `models.padding`.
    """
    generator = np.random.default_rng(0)
    for size in sizes:
        if coder is not None:
            yield from _random_buckets(spec, coder, size, generator)
            continue
        entries = random_entries(spec.tensor, spec.example, size, generator)
        try:
            samples = spec.preprocess(entries)
        except _ERRORS:
            samples = _resized(spec.preprocess(spec.example), size)
        yield np.ascontiguousarray(samples)


def _random_buckets(spec: ModelSpec, coder: Coder, size: int, generator: np.random.Generator) -> Iterator[Columns]:
    rows = []
    for row in range(size):
        try:
            rows.append(coder(random_sample(spec, generator)))
        except InvalidInput:  # of the model's own encode
            rows.append(coder(spec.example[row % len(spec.example)]))
    samples = Columns.of(rows)
    for bucket in buckets(samples, spec.padding):
        yield Columns(stacked(samples.take(bucket), spec.padding))


def cases(spec: ModelSpec, run: Run, coder: Coder | None = None) -> tuple[list[Case], list[Case]]:
    """Compute the outputs of the PyTorch network: of the short batches, and of the random ones.

    If it fails on random entries, for example on codes that it has no embedding for, or returns a number that is not
    finite, the example in that batch size takes their place. Raises what `run` raises on the example.
    """
    short = [Case(samples, run(samples)) for samples in short_batches(spec, coder)]
    return short, [_case(spec, run, samples, coder) for samples in random_batches(spec, coder=coder)]


def _case(spec: ModelSpec, run: Run, samples: Batch, coder: Coder | None) -> Case:
    try:
        outputs = run(samples)
        if all_finite(outputs):
            return Case(samples, outputs)
    except _ERRORS:
        pass
    samples = _bucket(spec, resized(example_samples(spec, coder), len(samples)))
    return Case(samples, run(samples))


def _bucket(spec: ModelSpec, samples: Batch) -> Batch:
    """Return samples as the network takes them: of named inputs those of the largest bucket, padded."""
    if not isinstance(samples, Columns):
        return np.ascontiguousarray(samples)
    largest = max(buckets(samples, spec.padding), key=len)
    return Columns(stacked(samples.take(largest), spec.padding))


def compare(run: Run, case: Case, *, tolerance: float = TOLERANCE) -> None:
    """Raise DisagreementError if `run` gives other outputs than the case has.

    `tolerance` is the largest difference that is allowed, relative to the largest output.
    """
    try:
        outputs = run(case.samples)
    except Exception as err:  # ONNX Runtime's errors have no other common base class
        raise DisagreementError(f"ONNX Runtime: {err}") from err
    for name, wanted in _arrays(case.outputs).items():
        _compare(_arrays(outputs)[name], wanted, f"of a batch of {len(case.samples)}", tolerance)


def _compare(outputs: Array, wanted: Array, rows: str, tolerance: float) -> None:
    if outputs.shape != wanted.shape:
        raise DisagreementError(f"the export answers {outputs.shape} {rows}, the network {wanted.shape}")
    difference = float(np.abs(outputs.astype(np.float64) - wanted).max(initial=0))
    if not difference <= tolerance * float(np.abs(wanted).max(initial=0)):
        raise DisagreementError(f"the export's outputs {rows} differ by {difference:.3g} from the network's")


def _arrays(outputs: Batch) -> Mapping[str, Any]:
    return outputs.arrays if isinstance(outputs, Columns) else {"": outputs}


def _resized(samples: Array, count: int) -> Array:
    return np.ascontiguousarray(np.resize(samples, (count, *samples.shape[1:])))
