"""Every Prometheus object of the service, in one place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.samples import Sample

from service.combined import Combined
from service.stages import StageSeconds

_PUBLISH_S = 0.5
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16_384)


class Metrics:
    """One set a process; a registry of its own, so that two applications in one process do not collide.

    Where several web processes share `folder`, each answers for all of them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        self._combined = Combined(
            folder,
            {
                "torchloop_waiting_requests": "sum",
                "torchloop_loaded_version": "each",
                "torchloop_backend": "highest",
                "torchloop_last_batch_timestamp_seconds": "highest",
            },
        )
        self._requests = Counter(
            "torchloop_requests",
            "Prediction requests, by their answer's status",
            ["model", "status"],
            registry=registry,
        )
        self._stages = StageSeconds()
        registry.register(self._stages)
        self.batch_size = Histogram(
            "torchloop_batch_size", "Samples in one forward pass", ["model"], buckets=_SIZES, registry=registry
        )
        self.last_batch = Gauge(
            "torchloop_last_batch_timestamp_seconds",
            "When the last forward pass began",
            ["model"],
            registry=registry,
        )
        self.waiting = Gauge(
            "torchloop_waiting_requests",
            "Requests waiting for the device",
            registry=registry,
        )
        self._loaded_version = Gauge(
            "torchloop_loaded_version",
            "Version that answers in a process",
            ["model"],
            registry=registry,
        )
        self._backend = Gauge(
            "torchloop_backend",
            "1 for what computes: onnxruntime, eager (PyTorch) or compile (torch.compile)",
            ["model", "backend"],
            registry=registry,
        )
        self.load_failures = Counter(
            "torchloop_load_failures", "Versions that could not be loaded", ["model"], registry=registry
        )
        self._counters: dict[tuple[str, int], Counter] = {}
        self._batches: dict[str, tuple[Histogram, Gauge]] = {}

    def request(self, model: str, status: int) -> None:
        """Count one answer. What `labels` finds is kept: looking it up costs more than counting."""
        counter = self._counters.get((model, status))
        if counter is None:
            counter = self._counters[model, status] = self._requests.labels(model, status)
        counter.inc()

    def batch(self, model: str, samples: int) -> None:
        """Count one forward pass, and when it was."""
        found = self._batches.get(model)
        if found is None:
            found = self._batches[model] = (self.batch_size.labels(model), self.last_batch.labels(model))
        found[0].observe(samples)
        found[1].set_to_current_time()

    def stages(self, model: str, decode_s: float, queue_s: float, forward_s: float, total_s: float) -> None:
        """Count where one request's time went."""
        self._stages.observe(model, (decode_s, queue_s, forward_s, total_s))

    def loaded(self, model: str, version: int, backend: str) -> None:
        """A version answers from now on, computed by that backend."""
        self._loaded_version.labels(model).set(version)
        for name in ("onnxruntime", "eager", "compile"):
            self._backend.labels(model, name).set(name == backend)
        self._combined.publish(self._registry.collect())

    def loaded_everywhere(self, model: str) -> set[float]:
        """The versions of a model that answer in the web processes that live; one, unless a swap is under way."""
        return {
            sample.value
            for sample in self.samples()
            if sample.name == "torchloop_loaded_version" and sample.labels["model"] == model
        }

    def samples(self) -> list[Sample]:
        """Every number at this moment."""
        return [sample for family in self.collect() for sample in family.samples]

    def exposition(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self)

    def collect(self) -> list[Metric]:
        """All of it, as the library's registries give it."""
        return self._combined.families(self._registry.collect())

    @contextlib.asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        """While entered, the other processes are told what this one counts."""

        async def publish() -> None:
            while True:
                await asyncio.sleep(_PUBLISH_S)
                self._combined.publish(self._registry.collect())

        publishing = asyncio.create_task(publish())
        yield
        publishing.cancel()
        self._combined.publish(self._registry.collect())
