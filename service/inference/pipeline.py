"""The way of a prediction: decode, admit, queue, batch, compute."""

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from models.spec import Array
from service.inference.admission import Admission
from service.inference.batcher import Batcher, Compute
from service.inference.decoding import BodyReader
from service.inference.engine import Engine, Loaded
from service.settings import Settings
from service.telemetry.metrics import Metrics


class Lane(NamedTuple):
    """Whose queue a request waits in: the live version's, or that of one version asked for by number."""

    model: str
    pinned: Loaded | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pipeline:
    """What every prediction goes through, whatever route it comes by."""

    bodies: BodyReader
    admission: Admission
    batcher: Batcher
    metrics: Metrics
    timeout_s: float


def build_pipeline(settings: Settings, engine: Engine, metrics: Metrics) -> Pipeline:
    """What predictions go through, whatever language they speak."""
    compute = compute_with(engine, metrics)
    batcher = Batcher(compute, max_batch=settings.max_batch, max_wait_s=settings.max_wait_ms / 1000)
    admission = Admission(batcher, settings.queue_limit, time.monotonic)
    metrics.waiting.set_function(lambda: admission.waiting)
    return Pipeline(
        bodies=BodyReader(settings.max_body_bytes, settings.max_pixels),
        admission=admission,
        batcher=batcher,
        metrics=metrics,
        timeout_s=settings.request_timeout_s,
    )


def compute_with(engine: Engine, metrics: Metrics) -> Compute:
    """What the batcher does with a batch: the network is taken here, once for all its callers."""

    async def compute(lane: Hashable, samples: Array) -> tuple[int, Array]:
        assert isinstance(lane, Lane)  # the one kind of lane that the predict route makes
        loaded = lane.pinned or engine.live(lane.model)
        metrics.batch(lane.model, len(samples))
        return loaded.version, await engine.compute(loaded, samples)

    return compute
