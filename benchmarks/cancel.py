"""Time to cancel a running job: seconds from POST /jobs/ID/cancel until GET /jobs/ID returns the state cancelled.

A `python -m service` subprocess with its worker trains a job that would take minutes. The job is cancelled after its
first progress report. docs/api.md promises two seconds.
"""

import time

import httpx

from benchmarks import Options
from benchmarks.report import table
from benchmarks.service_process import running_service

_AIM_S = 2.0
_POLL_S = 0.01
_ORDER = {"model": "regressor", "config": {"epochs": 10_000, "hidden": 50}}


def main(options: Options) -> str:
    """Return the table: the slowest round, and whether it meets the aim."""
    with (
        running_service({"TORCHLOOP_WORKER": "embedded"}) as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        seconds = [_cancelled_after_s(client) for _ in range(options.rounds)]
    slowest = max(seconds)
    row = ["cancel a running job", f"{slowest:.2f}", f"{_AIM_S:g}", "yes" if slowest < _AIM_S else "no"]
    return table(["", "slowest s", "aim s", "met"], [row])


def _cancelled_after_s(client: httpx.Client) -> float:
    path = f"/jobs/{client.post('/train', json=_ORDER).json()['id']}"
    while client.get(path).json()["progress"] is None:
        time.sleep(_POLL_S)
    asked = time.perf_counter()
    client.post(f"{path}/cancel").raise_for_status()
    while client.get(path).json()["state"] != "cancelled":
        time.sleep(_POLL_S)
    return time.perf_counter() - asked
