"""Our histograms equal those of prometheus_client."""

import random

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.samples import Sample

from service.telemetry.collectors import STAGES, StageSeconds

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def told(registry: CollectorRegistry) -> set[Sample]:
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {
        (sample.name, tuple(sorted(sample.labels.items())), round(sample.value, 9))  # type: ignore[misc]
        for sample in samples
        if not sample.name.endswith("_created")
    }


def test_every_number_is_that_of_the_librarys_histogram() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    stages = StageSeconds()
    ours.register(stages)
    words = "Time of a prediction request in each stage: decode, queue, forward, total"
    known = Histogram("torchloop_stage_seconds", words, ["model", "stage"], buckets=BOUNDS, registry=theirs)
    generator = random.Random(0)  # noqa: S311
    seconds = [*BOUNDS, 0.0, 11.0, *(10 ** generator.uniform(-5, 1.5) for _ in range(500))]
    for taken in seconds:
        model, four = generator.choice(["a", "b"]), (taken, 2 * taken, taken / 2, taken + 1)
        stages.observe(model, four)
        for stage, value in zip(STAGES, four, strict=True):
            known.labels(model, stage).observe(value)
    assert told(ours) == told(theirs)
    assert [(f.name, f.documentation, f.type) for f in ours.collect()] == [
        (f.name, f.documentation, f.type) for f in theirs.collect()
    ]
