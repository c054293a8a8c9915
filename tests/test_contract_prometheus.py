"""Contract of the private names of prometheus_client that service/telemetry/bulk.py uses.

A failure here means that another version changed one of them: adapt bulk.py, then move the pin in pyproject.toml.
"""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from service.telemetry.bulk import BulkHistogram

BOUNDS = (0.001, 0.01, 0.1, 1)


def _samples(kind: type[Histogram], batches: list[list[float]]) -> list[Sample]:
    registry = CollectorRegistry()
    histogram = kind("h", "A histogram", ["model"], buckets=BOUNDS, registry=registry)
    child = histogram.labels("a")
    for values in batches:
        if isinstance(child, BulkHistogram):
            child.observe_all(values)
        else:
            for value in values:
                child.observe(value)
    return [one for family in registry.collect() for one in family.samples if not one.name.endswith("_created")]


@pytest.mark.parametrize("name", ["_upper_bounds", "_buckets", "_sum"])
def test_a_histogram_has_the_private_attributes(name: str) -> None:
    assert hasattr(Histogram("h", "A histogram", buckets=BOUNDS, registry=None), name)


@pytest.mark.parametrize(
    "batches",
    [[[0.5]], [[0.001], [0.01, 1, 1.0000001]], [[1e9, 0.0, -1.0]], [[]], [[], [0.1]]],
    ids=["one", "bounds", "outside", "empty", "empty-first"],
)
def test_values_counted_together_are_counted_as_one_by_one(batches: list[list[float]]) -> None:
    assert _samples(BulkHistogram, batches) == _samples(Histogram, batches)


def test_random_values_fall_into_the_same_buckets() -> None:
    values = (10 ** np.random.default_rng(0).uniform(-5, 2, 1_000)).tolist()
    one_by_one, together = _samples(Histogram, [values]), _samples(BulkHistogram, [values[:300], values[300:]])
    for single, bulk in zip(one_by_one, together, strict=True):
        assert (single.name, single.labels) == (bulk.name, bulk.labels)
        assert bulk.value == pytest.approx(single.value, rel=1e-12)
