"""Every Prometheus object of the service, in one place."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16_384)


class Metrics:
    """One set a process; a registry of its own, so that two applications in one process do not collide."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "torchloop_requests",
            "Prediction requests, by their answer's status",
            ["model", "status"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "torchloop_stage_seconds",
            "Time of a prediction request in each stage: decode, queue, forward, total",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "torchloop_batch_size", "Samples in one forward pass", ["model"], buckets=_SIZES, registry=registry
        )
        self.last_batch = Gauge(
            "torchloop_last_batch_timestamp_seconds", "When the last forward pass began", ["model"], registry=registry
        )
        self.waiting = Gauge("torchloop_waiting_requests", "Requests waiting for the device", registry=registry)
        self.loaded_version = Gauge(
            "torchloop_loaded_version", "Version that answers in this process", ["model"], registry=registry
        )
        self.load_failures = Counter(
            "torchloop_load_failures", "Versions that could not be loaded", ["model"], registry=registry
        )
