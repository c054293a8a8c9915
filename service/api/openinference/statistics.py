"""The statistics of the Open Inference Protocol, read from the metrics: they count /predict and /v2 alike."""

from typing import Any

from service.telemetry.metrics import Metrics

_STAGES = {"queue": "queue", "compute_input": "decode", "compute_infer": "forward"}
_NEVER = {"count": 0, "ns": 0}


class _Figures:
    """Every number in the registry at one moment, by its sample's name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.samples = metrics.samples()

    def total(self, name: str, **labels: str) -> float:
        """The sum over the samples of that name that bear these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def stage(self, model: str, stage: str) -> dict[str, int]:
        """How often and how long, in nanoseconds."""
        count = self.total("torchloop_stage_seconds_count", model=model, stage=stage)
        seconds = self.total("torchloop_stage_seconds_sum", model=model, stage=stage)
        return {"count": int(count), "ns": int(seconds * 1e9)}


def model_stats(metrics: Metrics, model: str, version: str) -> dict[str, Any]:
    """One entry of `model_stats`: what the web processes did for the model since they started, whatever the version.

    How long failed requests took, and how long batches of each size took, is not measured.
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
