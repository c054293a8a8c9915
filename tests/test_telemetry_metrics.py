"""The metrics of one process, as Prometheus reads them."""

import threading

from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import STAGES, Metrics

BOUNDS = ["0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05"]
BOUNDS += ["0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]


def _exposed(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """The samples of the text format: (name, values of the labels, in this order) -> value."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (s.name, *(s.labels[label] for label in ("model", "stage", "status", "le") if label in s.labels)): s.value
        for family in families
        for s in family.samples
    }


def test_requests_are_counted_by_model_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 422):
        metrics.request("a", status)
    metrics.request("b", 200)
    counts = {key: value for key, value in _exposed(metrics).items() if key[0] == "torchloop_requests_total"}
    assert counts == {
        ("torchloop_requests_total", "a", "200"): 2,
        ("torchloop_requests_total", "a", "422"): 1,
        ("torchloop_requests_total", "b", "200"): 1,
    }


def test_the_seconds_of_each_stage_are_a_histogram_with_the_buckets_of_the_dashboard() -> None:
    metrics = Metrics()
    metrics.stages("a", (0.0001, 0.003, 0.02, 11.0))
    metrics.stages("a", (0.0002, 0.003, 0.02, 11.0))
    exposed = _exposed(metrics)
    for stage, below, total in zip(
        STAGES, ("0.00025", "0.005", "0.025", "+Inf"), (0.0003, 0.006, 0.04, 22.0), strict=True
    ):
        buckets = {
            key[-1]: value
            for key, value in exposed.items()
            if key[:3] == ("torchloop_stage_seconds_bucket", "a", stage)
        }
        assert list(buckets) == BOUNDS
        assert [buckets[bound] for bound in BOUNDS[BOUNDS.index(below) :]] == [2] * len(BOUNDS[BOUNDS.index(below) :])
        assert exposed["torchloop_stage_seconds_count", "a", stage] == 2
        assert round(exposed["torchloop_stage_seconds_sum", "a", stage], 9) == total
    assert exposed["torchloop_stage_seconds_bucket", "a", "decode", "0.0001"] == 1  # upper bounds are inclusive


def test_counts_are_exact_while_another_thread_collects() -> None:
    metrics = Metrics()
    done = threading.Event()
    seen: list[float] = []

    def collect() -> None:
        while not done.is_set():
            seen.append(_exposed(metrics).get(("torchloop_stage_seconds_count", "a", "total"), 0))

    collector = threading.Thread(target=collect)
    collector.start()
    for _ in range(5_000):
        metrics.stages("a", (0.1, 0.1, 0.1, 0.1))
        metrics.request("a", 200)
    done.set()
    collector.join()
    exposed = _exposed(metrics)
    assert exposed["torchloop_stage_seconds_count", "a", "total"] == 5_000
    assert exposed["torchloop_requests_total", "a", "200"] == 5_000
    assert seen == sorted(seen)


def test_drift_is_exposed_for_the_features_of_now_and_gone_with_its_samples() -> None:
    metrics = Metrics()

    def shown() -> dict[str, float]:
        lines = metrics.exposition().decode().splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith("torchloop_drift"))
        return {name: float(value) for name, _, value in found}

    metrics.drift("a", {"ink": (0.2, 0.05), "answers: label": (0.01, 0.06)}, alarm=True)
    metrics.drift("a", {"ink": (0.1, 0.05)}, alarm=False)
    assert shown() == {
        'torchloop_drift_psi{feature="ink",model="a"}': 0.1,
        'torchloop_drift_limit{feature="ink",model="a"}': 0.05,
        'torchloop_drift_alarm{model="a"}': 0,
    }
    metrics.drift("a", {}, alarm=False)
    assert shown() == {}
