"""Which number of an entry each number of a sample comes from: attributions are mapped back through it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.checkpoints.parity import bounds
from models.spec import Array, Entry, same

_PRECISION = 2e-3  # of the range of the numbers: float16 keeps three digits
_ROUNDING = 1e-6  # of the numbers: float32
_TRIALS = 3  # random entries that a routing must predict


class NotRoutable(Exception):
    """A number of a sample depends on several numbers of the entry, or not by a scale and an offset."""


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """A preprocessing that moves, scales, shifts, repeats or drops numbers.

    sample[j] = scale[j] * entry[source[j]] + constant. `source` is int64 (S,) and `scale` float64 (S,), for the S
    numbers of a sample. A constant, such as padding, has scale 0.
    """

    shape: tuple[int, ...]
    source: Array
    scale: Array

    def gradients(self, attributions: Array) -> Array:
        """Map derivatives by the numbers of samples (N, ...) to those by the numbers of entries (N, *shape)."""
        scaled = attributions.reshape(len(attributions), -1) * self.scale
        return self.contributions(scaled).astype(attributions.dtype)

    def contributions(self, attributions: Array) -> Array:
        """Map contributions of the numbers of samples (N, ...) to those of entries (N, *shape): their sum stays."""
        flat = attributions.reshape(len(attributions), -1)
        routed = np.zeros((int(np.prod(self.shape)), len(flat)))
        used = self.scale != 0
        np.add.at(routed, self.source[used], flat[:, used].T)
        return routed.T.reshape(len(flat), *self.shape).astype(attributions.dtype)


def routing(preprocess: Callable[[Array], Array], entry: Entry, example: Array) -> Routing:
    """Find the routing of a preprocessing by probing it with entries. Raises NotRoutable.

    Two entries of equal numbers give scale and constant of each number of a sample. Entries whose numbers are the bits
    of their positions give the sources. Random entries then prove the result: a number that mixes several others, as
    after a resize with interpolation, or that is no scaled copy fails there.
    """
    size = int(np.prod(entry.shape))
    if preprocess is same:
        return Routing(entry.shape, np.arange(size), np.ones(size))
    low, high = (float(entry.dtype.type(bound)) for bound in bounds(entry, example))
    if high <= low:
        raise NotRoutable("the entries have no range of numbers to try")
    places = np.arange(size)
    bits = [(places >> bit) & 1 for bit in range(max(1, (size - 1).bit_length()))]
    levels = np.stack([np.zeros(size), np.ones(size), *bits])
    generator = np.random.default_rng(0)
    trials = (low + (high - low) * generator.random((_TRIALS, size))).astype(entry.dtype)
    probes = np.concatenate([(low + (high - low) * levels).astype(entry.dtype), trials])
    try:
        samples = preprocess(probes.reshape(-1, *entry.shape)).reshape(len(probes), -1).astype(np.float64)
    except Exception as err:  # a model author's code: it may raise anything
        raise NotRoutable(f"the preprocessing raised {type(err).__name__} for entries within their bounds") from err
    if not np.isfinite(samples).all():
        raise NotRoutable("the preprocessing returns NaN or infinity for entries within their bounds")
    span = samples[1] - samples[0]
    constant = span == 0
    shares = (samples[2:-_TRIALS] - samples[0]) / np.where(constant, 1, span)
    source = sum((np.rint(share).astype(np.int64) & 1) << bit for bit, share in enumerate(shares)) % size
    expected = samples[0] + span * (trials[:, source].astype(np.float64) - low) / (high - low)
    tolerance = _PRECISION * np.abs(span) + _ROUNDING * np.abs(samples).max(axis=0)
    if not np.all(np.abs(samples[-_TRIALS:] - expected) <= tolerance):
        raise NotRoutable("the preprocessing mixes the numbers of an entry, or changes them by more than a scale")
    scale = span / (high - low)
    return Routing(entry.shape, np.where(constant, 0, source), np.where(np.abs(scale - 1) < _ROUNDING, 1, scale))
