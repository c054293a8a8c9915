"""Statistics of the Open Inference Protocol, read from the metrics: they count /predict and /v2 together."""

from typing import Any

from service.telemetry.metrics import Metrics

_STAGES = {"queue": "queue", "compute_input": "decode", "compute_infer": "forward"}
_NEVER = {"count": 0, "ns": 0}


class _Figures:
    """Every metric at one moment, by its sample's name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.samples = metrics.samples()

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over the samples of that name with these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def stage(self, model: str, stage: str) -> dict[str, int]:
        """Return count and total nanoseconds of a stage."""
        count = self.total("torchloop_stage_seconds_count", model=model, stage=stage)
        seconds = self.total("torchloop_stage_seconds_sum", model=model, stage=stage)
        return {"count": int(count), "ns": int(seconds * 1e9)}


def model_stats(metrics: Metrics, model: str, version: str) -> dict[str, Any]:
    """Return one entry of `model_stats`: all versions of the model, in all web processes, since they started.

    The duration of failed requests, and of batches by size, is not measured.
    """
    figures = _Figures(metrics)
    stages = {field: figures.stage(model, stage) for field, stage in _STAGES.items()}
    success = figures.stage(model, "total")
    requests = int(figures.total("torchloop_requests_total", model=model))
    writing = max(0, success["ns"] - sum(stage["ns"] for stage in stages.values()))
    return {
        "name": model,
        "version": version,
        "last_inference": int(figures.total("torchloop_last_batch_timestamp_seconds", model=model) * 1000),
        "inference_count": int(figures.total("torchloop_batch_size_sum", model=model)),
        "execution_count": int(figures.total("torchloop_batch_size_count", model=model)),
        "inference_stats": {
            "success": success,
            "fail": {"count": max(0, requests - success["count"]), "ns": 0},
            **stages,
            "compute_output": {"count": success["count"], "ns": writing},
            "cache_hit": _NEVER,
            "cache_miss": _NEVER,
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    }
