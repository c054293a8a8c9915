"""All Prometheus metrics of the service. Nothing else in the service reads them to decide anything."""

import asyncio
import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.samples import Sample

from service.telemetry.bulk import BulkHistogram
from service.telemetry.multiprocess import Combined, Joined
from service.telemetry.trial_metrics import GAUGES as TRIAL_GAUGES
from service.telemetry.trial_metrics import TrialMetrics

STAGES = ("decode", "queue", "forward", "total")
_PUBLISH_S = 0.5
_AT_ONCE = 256  # requests whose stages are counted together
# Upper bounds of the buckets, in seconds and in samples.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LOAD_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16_384)
_GAUGES: dict[str, Joined] = {
    "torchloop_waiting_requests": "sum",
    "torchloop_loaded_version": "each",
    "torchloop_backend": "highest",
    "torchloop_last_batch_timestamp_seconds": "highest",
    "torchloop_nodes": "highest",
    **dict.fromkeys(TRIAL_GAUGES, "highest"),
    "torchloop_drift_psi": "highest",
    "torchloop_drift_limit": "highest",
    "torchloop_drift_alarm": "highest",
}
_BACKENDS = ("onnxruntime", "eager", "compile")
_NODE_STATES = ("serving", "leaving", "silent")


class Metrics:
    """Metrics of a process, in a separate registry, so that two applications in one process do not collide.

    If several web processes share `folder`, each of them exposes the metrics of all.
    """

    def __init__(self, folder: Path | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        self._combined = Combined(folder, _GAUGES)
        self._requests, self._stage_seconds = _requests(registry)
        self.batch_size = Histogram(
            "torchloop_batch_size",
            "Samples in one forward pass",
            ["model"],
            buckets=_SIZES,
            registry=registry,
        )
        self.last_batch = Gauge(
            "torchloop_last_batch_timestamp_seconds",
            "When the last forward pass began",
            ["model"],
            registry=registry,
        )
        self.waiting = Gauge("torchloop_waiting_requests", "Requests waiting for the device", registry=registry)
        self._loaded_version = Gauge(
            "torchloop_loaded_version",
            "Version that answers in a process",
            ["model"],
            registry=registry,
        )
        self._backend = Gauge(
            "torchloop_backend",
            "1 for the backend in use: onnxruntime, eager (PyTorch) or compile (torch.compile)",
            ["model", "backend"],
            registry=registry,
        )
        self.load_failures = Counter(
            "torchloop_load_failures",
            "Versions that could not be loaded",
            ["model"],
            registry=registry,
        )
        self._nodes = Gauge(
            "torchloop_nodes",
            "Services that share the database, by state; silent: not seen for three seconds",
            ["state"],
            registry=registry,
        )
        self.trials = TrialMetrics(registry)
        self._loads, self._unloads, self._cold_starts = _loads(registry)
        self._explanations, self._refused, self._failed_writes = _rare_events(registry)
        self._drift_psi, self._drift_limit, self._drift_alarm = _drift(registry)
        self._drifting: dict[str, set[str]] = {}  # the features that have a number, by model
        self._captures = Counter(
            "torchloop_captures",
            "Samples drawn for capture: captured, dropped (no room in the queue, or too large) or failed",
            ["model", "outcome"],
            registry=registry,
        )
        # Counted here first, and in the metrics in bulk: one by one they cost 5 µs a request.
        self._counting = threading.Lock()
        self._answers: defaultdict[tuple[str, int], int] = defaultdict(int)  # all answers so far
        self._counted: dict[tuple[str, int], int] = {}  # those that the metric has
        self._stages: dict[str, deque[tuple[float, float, float, float]]] = {}  # not yet in the metric
        # The label combinations in use, since looking one up in a metric takes a lock and builds strings.
        self._batches: dict[str, tuple[Histogram, Gauge]] = {}

    def request(self, model: str, status: int) -> None:
        """Count one answer. To be called by one thread only."""
        self._answers[model, status] += 1

    @property
    def answered(self) -> int:
        """Return how many predictions this process has answered. For the thread that counts them."""
        return sum(self._answers.values())

    def nodes(self, states: Mapping[str, int]) -> None:
        """Set how many nodes there are in each state."""
        for state in _NODE_STATES:
            self._nodes.labels(state).set(states.get(state, 0))

    def drift(self, model: str, found: Mapping[str, tuple[float, float]], *, alarm: bool) -> None:
        """Set PSI and limit of each feature of a model's live version; none: it has no figures. For one thread."""
        for gone in self._drifting.pop(model, set()) - found.keys():
            self._drift_psi.remove(model, gone)
            self._drift_limit.remove(model, gone)
        if not found:
            self._drift_alarm.remove(model)
            return
        self._drifting[model] = set(found)
        for feature, (psi, limit) in found.items():
            self._drift_psi.labels(model, feature).set(psi)
            self._drift_limit.labels(model, feature).set(limit)
        self._drift_alarm.labels(model).set(alarm)

    def explanation(self, model: str, status: int) -> None:
        """Count one answer of POST /explain."""
        self._explanations.labels(model, str(status)).inc()

    def captures(self, model: str, outcome: str, samples: int) -> None:
        """Count samples that were captured, dropped or failed to be captured. Thread-safe."""
        self._captures.labels(model, outcome).inc(samples)

    def refused(self, status: int) -> None:
        """Count one request that was refused because of its key, host or origin."""
        self._refused.labels(str(status)).inc()

    def failed_write(self, fault: str) -> None:
        """Count one write to the store that failed. Thread-safe."""
        self._failed_writes.labels(fault).inc()

    def batch(self, model: str, samples: int) -> None:
        """Count one forward pass and set its time."""
        found = self._batches.get(model)
        if found is None:
            found = self._batches[model] = (self.batch_size.labels(model), self.last_batch.labels(model))
        found[0].observe(samples)
        found[1].set_to_current_time()

    def stages(self, model: str, seconds: tuple[float, float, float, float]) -> None:
        """Count the seconds of one request in each of STAGES."""
        waiting = self._stages.get(model)
        if waiting is None:
            waiting = self._stages[model] = deque()
        waiting.append(seconds)
        if len(waiting) >= _AT_ONCE:
            self._count()

    def loaded(self, model: str, version: int, backend: str) -> None:
        """Set the version that answers from now on, and the backend that computes it."""
        self._loads.labels(model).inc()
        self._loaded_version.labels(model).set(version)
        for name in _BACKENDS:
            self._backend.labels(model, name).set(name == backend)
        self._combined.publish(self._own())

    def unloaded(self, model: str) -> None:
        """Count a network that was unloaded to save memory."""
        self._unloads.inc()
        self._loaded_version.remove(model)
        for name in _BACKENDS:
            self._backend.remove(model, name)

    def cold_start(self, seconds: float) -> None:
        """Count the load of an unloaded network that requests waited for."""
        self._cold_starts.observe(seconds)

    def samples(self) -> list[Sample]:
        """Return the current samples."""
        return [sample for family in self.collect() for sample in family.samples]

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self)

    def collect(self) -> list[Metric]:
        """Return all metrics, as a registry of the library does."""
        return self._combined.families(self._own())

    @contextlib.asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        """While entered, write the counts for the other processes, in a thread since disks may be slow."""

        async def publish() -> None:
            while True:
                await asyncio.sleep(_PUBLISH_S)
                await asyncio.to_thread(self._combined.publish, self._own())

        publishing = asyncio.create_task(publish())
        yield
        publishing.cancel()
        self._combined.publish(self._own())

    def _own(self) -> Iterator[Metric]:
        """Collect the metrics of this process."""
        self._count()
        yield from self._registry.collect()

    def _count(self) -> None:
        """Bring the metrics up to date. Thread-safe, also while requests are counted."""
        with self._counting:
            for (model, status), number in list(self._answers.items()):
                new = number - self._counted.get((model, status), 0)
                if new:
                    self._requests.labels(model, status).inc(new)
                    self._counted[model, status] = number
            for model, waiting in list(self._stages.items()):
                rows = [waiting.popleft() for _ in range(len(waiting))]
                for stage, seconds in zip(STAGES, zip(*rows, strict=True), strict=False):  # no rows: no stages
                    self._stage_seconds.labels(model, stage).observe_all(seconds)


def _requests(registry: CollectorRegistry) -> tuple[Counter, BulkHistogram]:
    """Return the counter of prediction requests and the histogram of their stages."""
    requests = Counter(
        "torchloop_requests",
        "Prediction requests, by their answer's status",
        ["model", "status"],
        registry=registry,
    )
    stage_seconds = BulkHistogram(
        "torchloop_stage_seconds",
        f"Time of a prediction request in each stage: {', '.join(STAGES)}",
        ["model", "stage"],
        buckets=SECONDS,
        registry=registry,
    )
    return requests, stage_seconds


def _loads(registry: CollectorRegistry) -> tuple[Counter, Counter, Histogram]:
    """Return the counters of loaded and unloaded networks, and the histogram of cold starts, over all models."""
    loads = Counter("torchloop_loads", "Networks loaded to answer", ["model"], registry=registry)
    unloads = Counter(
        "torchloop_unloads",
        "Networks unloaded because others were used more recently (TORCHLOOP_MAX_LOADED)",
        registry=registry,
    )
    cold_starts = Histogram(
        "torchloop_cold_start_seconds",
        "Time to load an unloaded network that requests waited for",
        buckets=_LOAD_SECONDS,
        registry=registry,
    )
    return loads, unloads, cold_starts


def _rare_events(registry: CollectorRegistry) -> tuple[Counter, Counter, Counter]:
    """Return the counters of explanations, of refused requests, and of failed writes."""
    explanations = Counter(
        "torchloop_explanations",
        "Requests for explanations, by their answer's status",
        ["model", "status"],
        registry=registry,
    )
    refused = Counter(
        "torchloop_refused_requests",
        "Requests refused before they reached a route: without a valid key, or from another site",
        ["status"],
        registry=registry,
    )
    failed_writes = Counter(
        "torchloop_store_failed_writes",
        "Writes to the database or the store folder that failed, by the kind of fault",
        ["fault"],
        registry=registry,
    )
    return explanations, refused, failed_writes


def _drift(registry: CollectorRegistry) -> tuple[Gauge, Gauge, Gauge]:
    """Return the gauges of drift in the last hour: PSI and its limit, and whether there is drift."""
    psi = Gauge(
        "torchloop_drift_psi",
        "Population stability index of a feature, or of the answers, of the live version in the last hour",
        ["model", "feature"],
        registry=registry,
    )
    limit = Gauge(
        "torchloop_drift_limit",
        "Limit of the population stability index for as many samples",
        ["model", "feature"],
        registry=registry,
    )
    alarm = Gauge(
        "torchloop_drift_alarm",
        "1 if a feature or the answers of the live version have drifted in the last hour",
        ["model"],
        registry=registry,
    )
    return psi, limit, alarm
