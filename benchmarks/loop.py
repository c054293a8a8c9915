"""Latency and failures of /predict/mnist during promotions, rollbacks and a training job.

`python -m service` answers an open-loop load: a request is sent every 1 / RATE seconds, whether or not earlier ones
were answered. Each round is a quiet period, then 20 promotions and rollbacks over HTTP; after the rounds a job trains
and is promoted. It fails unless every response is 200, from a version that was live at some moment of the request. It
reports latencies as ratios to the quiet period, and the memory of the web process. Client, service and training share
the machine, so other load affects the results.
"""

import asyncio
import math
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import psutil
import torch

from benchmarks import Options
from benchmarks.service_process import running_service
from models.catalog import PRETRAINED
from models.checkpoints import state_dict

RATE = 100  # requests per second: client and service together take about half of one core
_QUIET_S = 6.0  # in each round
_SWAPS = 20  # in each round: a multiple of promote, promote, roll back, roll back
_GAP_S = 0.2  # pause before each quiet period and each swap
_EARLY, _LATE = 5, 50  # numbers of swaps after which the memory is compared
_FOLLOW_S = 2.0  # web processes follow a worker's promotion within this time


class Answer(NamedTuple):
    """One request: when it was sent and answered, in s, and the version that answered, or the fault."""

    began: float
    ended: float
    version: int
    fault: str | None = None


class Change(NamedTuple):
    """`version` went live at some moment between `began` and `ended`, in s."""

    version: int
    began: float
    ended: float


class Window(NamedTuple):
    """A period, in s."""

    began: float
    ended: float


@dataclass
class Seen:
    """Recorded events. Times are of time.perf_counter, in s."""

    answers: list[Answer] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)  # delay of each request in the client itself
    changes: list[Change] = field(default_factory=list)
    phases: dict[str, list[Window]] = field(default_factory=lambda: {"quiet": [], "in a swap": [], "in the job": []})
    resident: list[int] = field(default_factory=list)  # bytes of the web process, after each swap


def main(options: Options) -> str:
    """Return the table. Raises SystemExit if a request failed or was answered by a version that was not live."""
    settings = {"TORCHLOOP_DATA": str(options.data.resolve()), "TORCHLOOP_WORKER": "embedded"}
    training = _training(options.data)
    with running_service(settings) as (url, process):
        seen = asyncio.run(
            _observe(url, psutil.Process(process.pid), max(options.rounds, math.ceil(_LATE / _SWAPS)), training)
        )
    faults, outdated = Counter(a.fault for a in seen.answers if a.fault), stale(seen.answers, seen.changes)
    table = _table(seen, faults.total(), len(outdated), training["config"])
    if faults or outdated:
        raise SystemExit(f"loop\n{table}\n  failed: {dict(faults.most_common(5))}; stale: {outdated[:5]}")
    return table


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` (0 to 1) of them do not exceed; NaN if there are none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def within(answers: Sequence[Answer], windows: Sequence[Window]) -> list[Answer]:
    """Return the answers whose requests overlap a window; slow requests are more likely to."""
    return [answer for answer in answers if any(answer.began <= w.ended and w.began <= answer.ended for w in windows)]


def stale(answers: Sequence[Answer], changes: Sequence[Change]) -> list[Answer]:
    """Return the successful responses from a version that was not live at any moment of the request.

    A version may be live from the moment its change began until the next change, if any, has ended: while a change is
    being made, both the old and the new one may. `changes` are in order; the first is the initial version.
    """
    ends = [change.ended for change in changes[1:]] + [math.inf]
    lives = [(change.version, change.began, end) for change, end in zip(changes, ends, strict=True)]

    def was_live(answer: Answer) -> bool:
        return any(answer.version == v and answer.began <= end and began <= answer.ended for v, began, end in lives)

    return [answer for answer in answers if answer.fault is None and not was_live(answer)]


def _training(data: Path) -> dict[str, Any]:
    """Return the job: one epoch of MNIST if its files exist, else digits for about as long."""
    there = any((data / "MNIST" / "raw").glob("train-images*"))  # a failed download leaves an empty folder
    dataset, epochs = ("mnist", 1) if there else ("digits", 40)
    return {"model": "mnist", "promote": "always", "config": {"dataset": dataset, "epochs": epochs}}


async def _observe(url: str, web: psutil.Process, rounds: int, training: dict[str, Any]) -> Seen:
    """Run all phases under continuous load."""
    seen = Seen()
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        live = (await _call(client, "GET", "/models/mnist/promotions"))["live"]
        seen.changes.append(Change(live, -math.inf, -math.inf))
        others = [(await _register(client, seed))["version"] for seed in (1, 2)]
        async with _load(url, seen):
            await asyncio.sleep(1)  # until connections are open
            for _ in range(rounds):
                await asyncio.sleep(_GAP_S)
                began = time.perf_counter()
                await asyncio.sleep(_QUIET_S)
                seen.phases["quiet"].append(Window(began, time.perf_counter()))
                await _swap(client, seen, others, web)
            await _train(client, seen, training)
    return seen


async def _register(client: httpx.AsyncClient, seed: int) -> Any:
    """Register a version: the shipped weights with Gaussian noise of 0.001."""
    generator = torch.Generator().manual_seed(seed)
    shipped = torch.load(PRETRAINED / "mnist.pt", weights_only=True)
    state = {key: value + 1e-3 * torch.randn(value.shape, generator=generator) for key, value in shipped.items()}
    return await _call(client, "POST", "/models/mnist/versions", content=state_dict.to_bytes(state))


async def _swap(client: httpx.AsyncClient, seen: Seen, others: Sequence[int], web: psutil.Process) -> None:
    """Promote each of `others`, then roll back as often; repeat until _SWAPS swaps are done."""
    turn: list[int | None] = [*others, *[None for _ in others]]
    for number in range(_SWAPS):
        version = turn[number % len(turn)]
        await asyncio.sleep(_GAP_S)
        began = time.perf_counter()
        action, body = ("rollback", None) if version is None else ("promote", {"version": version})
        done = await _call(client, "POST", f"/models/mnist/{action}", json=body)
        window = Window(began, time.perf_counter())
        seen.phases["in a swap"].append(window)
        seen.changes.append(Change(done["live"], *window))
        seen.resident.append(web.memory_info().rss)


async def _train(client: httpx.AsyncClient, seen: Seen, training: dict[str, Any]) -> None:
    """Queue a job and wait until its version is live. Raises SystemExit if the job fails."""
    began, clock = time.perf_counter(), time.time() - time.perf_counter()
    job = await _call(client, "POST", "/train", json=training)
    while job["state"] in {"queued", "running"}:
        await asyncio.sleep(0.5)
        job = await _call(client, "GET", f"/jobs/{job['id']}")
    if job["state"] != "succeeded":
        raise SystemExit(f"loop: the job {job['state']}: {job['error']}")
    history = await _call(client, "GET", "/models/mnist/promotions")
    row = next(row for row in history["promotions"] if row["by"] == job["id"])
    at = datetime.fromisoformat(row["at"]).timestamp() - clock
    seen.changes.append(Change(row["version"], at, at + _FOLLOW_S))
    seen.phases["in the job"].append(Window(began, time.perf_counter()))
    await asyncio.sleep(_FOLLOW_S + 1)


async def _call(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> Any:
    """Send a request and return its JSON. Raises SystemExit if it fails."""
    response = await client.request(method, path, **body)
    if response.is_error:
        raise SystemExit(f"loop: {method} {path} returned {response.status_code}: {response.text}")
    return response.json()


@asynccontextmanager
async def _load(url: str, seen: Seen) -> AsyncIterator[None]:
    """Send RATE requests per second inside the context; wait for all responses on exit."""
    stop = asyncio.Event()
    pacing = asyncio.create_task(_pace(url, seen, stop))
    try:
        yield
    finally:
        stop.set()
        await pacing


async def _pace(url: str, seen: Seen, stop: asyncio.Event) -> None:
    body = (PRETRAINED / "seven.png").read_bytes()
    limits = httpx.Limits(keepalive_expiry=2)  # shorter than the service's 5 s, which could close a connection in use
    async with httpx.AsyncClient(base_url=url, timeout=15, limits=limits) as client, asyncio.TaskGroup() as group:
        due = time.perf_counter()
        while not stop.is_set():
            await asyncio.sleep(max(0, due - time.perf_counter()))
            seen.late_s.append(time.perf_counter() - due)
            group.create_task(_ask(client, body, seen))
            due += 1 / RATE


async def _ask(client: httpx.AsyncClient, body: bytes, seen: Seen) -> None:
    began = time.perf_counter()
    version, fault = 0, None
    try:
        response = await client.post("/predict/mnist", content=body, headers={"Content-Type": "image/png"})
        response.raise_for_status()
        version = orjson.loads(response.content)["version"]
    except httpx.HTTPStatusError as err:
        fault = str(err.response.status_code)
    except httpx.HTTPError as err:
        fault = type(err).__name__
    seen.answers.append(Answer(began, time.perf_counter(), version, fault))


def _table(seen: Seen, failed: int, outdated: int, config: dict[str, Any]) -> str:
    taken = {name: _latencies_ms(within(seen.answers, windows)) for name, windows in seen.phases.items()}
    notes = {
        "quiet": "",
        "in a swap": f" (aim 1.5; {len(seen.resident)} swaps)",
        "in the job": f" (aim 2; epochs of {config['dataset']}: {config['epochs']})",
    }
    late_ms = percentile(seen.late_s, 0.99) * 1000
    lines = [
        f"  POST /predict/mnist, {RATE} requests/s, 99% sent at most {late_ms:.1f} ms late",
        f"  {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}",
        f"  {len(seen.answers)} requests: {failed} failed, {outdated} answered by a version not live (aims 0, 0)",
        "  phase        requests    p50 ms    p99 ms   / quiet p99",
    ]
    for name, values in taken.items():
        p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
        ratio = p99 / percentile(taken["quiet"], 0.99)
        lines.append(f"  {name:10} {len(values):10} {p50:9.2f} {p99:9.2f} {ratio:8.2f}{notes[name]}")
    early, late = (seen.resident[swaps - 1] / 2**20 for swaps in (_EARLY, _LATE))
    growth = f"{early:.1f} MiB after {_EARLY} swaps, {late:.1f} after {_LATE}: {late / early - 1:+.1%}"
    return "\n".join([*lines, f"  web process: {growth} (aim within 5%)"])


def _latencies_ms(answers: Sequence[Answer]) -> list[float]:
    return [(answer.ended - answer.began) * 1000 for answer in answers]
