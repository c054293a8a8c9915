"""What an open trial costs the callers: CPU of a prediction with a canary open, and latency beside a shadow.

One web process serves mnist, with its own checkpoint once more as the candidate, and gets the same picture again and
again. Phases with and without a trial alternate within one run; a ratio of CPU is the median over the rounds of that of
a phase to the mean of those before and after it. CPU is that of all threads of the service, by /proc, with as many
requests as it can answer. A canary that answers some of them also has them computed in smaller batches, by two networks
that share the caches: so one that no key belongs to is measured, too. Latency is that of an open loop at half of that
rate, where every sample is shadowed.

Without a trial a request pays for asking whether there is one, and the process for looking for new trials four times a
second; with a canary, for choosing the version and counting the answer. Each is measured alone, and given as a share of
what a request costs: other work on the machine does not change it.

The p99 of all requests of a phase is that of its slowest moments, which other work on the machine sets as well. So the
p99 is taken of each half second, and a phase has the median of these: a spoilt moment counts once. It needs ten rounds
or more; what difference chance makes is seen from the phases without a trial.
"""

import asyncio
import math
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

import httpx
import numpy as np
import psutil

from benchmarks import Options
from benchmarks.loop import percentile
from benchmarks.openloop import Answer, Client, p99s_ms
from benchmarks.report import Aim, table
from benchmarks.servers import PRETRAINED, SEVEN
from benchmarks.service_process import running_service
from service.delivery.trial_canary import Confirm, TrialCanary
from service.delivery.trial_counts import TrialCounts
from service.delivery.trials import Conditions, Stage, Trial, Trials
from service.inference import callers
from service.inference.decoding import Samples
from service.inference.engine import Loaded
from service.store.database import Store

_CALLERS = 16
_LOOKS, _LOOKS_PER_S = 200, 4
_WARM_S = 1.0  # of load before a phase: the queue of the shadow fills
_WRITTEN_S = 2.5  # counts are written each second
_STAGE = {"for": "PT6H", "samples": 100_000_000}
_SHARES = 1e-9, 0.1


@dataclass(frozen=True)
class Phase:
    """CPU µs of the service per answer, answers a second, and the answers."""

    cpu_us: float
    rate: float
    answers: Sequence[Answer]

    @property
    def bad(self) -> int:
        """Return the number of answers other than 200."""
        return sum(answer.status != 200 for answer in self.answers)


class Service:
    """A running service with one web process, and a client of it."""

    def __init__(self, url: str, pid: int) -> None:
        self.api = httpx.Client(base_url=url, timeout=60)
        host, port = url.removeprefix("http://").split(":")
        self._where = host, int(port)
        self._pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        found = self.api.post("/models/mnist/versions", content=(PRETRAINED / "mnist.pt").read_bytes())
        self._candidate: int = found.raise_for_status().json()["version"]
        self.followed_s: list[float] = []  # until a change of a trial was followed by all processes

    @contextmanager
    def trial(self, stage: Mapping[str, Any]) -> Iterator[Callable[[], Mapping[str, Any]]]:
        """Open a trial of one stage; yield the function that returns it with its evidence. It is aborted at the end."""
        self._change("", version=self._candidate, stages=[stage])
        try:
            yield lambda: self.api.get("/models/mnist/trial").raise_for_status().json()
        finally:
            self._change("/abort", reason="measured")

    def _change(self, path: str, **body: Any) -> None:
        """Change the trial. The answer comes once all processes follow; after two seconds it names the others."""
        began = time.perf_counter()
        answer = self.api.post(f"/models/mnist/trial{path}", json=body).raise_for_status().json()
        self.followed_s.append(time.perf_counter() - began if not answer["waiting_for"] else math.inf)

    def loaded(self, seconds: float, rate: float | None = None) -> Phase:
        """Send the picture for some seconds: over a fixed number of connections, or at a fixed rate."""
        with Client(*self._where, "/predict/mnist", SEVEN.content, SEVEN.media_type) as client:
            send = partial(client.closed_loop, _CALLERS) if rate is None else partial(client.open_loop, rate)
            send(_WARM_S)
            before, began = self._cpu_s(), time.perf_counter()
            answers = send(seconds)
            spent, took = self._cpu_s() - before, time.perf_counter() - began
        return Phase(spent / len(answers) * 1e6, len(answers) / took, answers)

    def _cpu_s(self) -> float:
        """Return the CPU time of all threads, in s."""
        paths = [path for pid in self._pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(path.read_text().split()[0]) for path in paths) / 1e9


def main(options: Options) -> str:
    """Return the table."""
    with TemporaryDirectory() as store, running_service({"TORCHLOOP_STORE": store}) as (url, process):
        service = Service(url, process.pid)
        service.loaded(1)
        rows = [*_canary(service, options), *_shadow(service, options)]
        rows.append(Aim("opened or ended, until all processes follow, s", service.followed_s, 2))
    return table(["", "median, or least to greatest", "aim", "met"], [row.cells() for row in rows])


def _canary(service: Service, options: Options) -> list[Aim]:
    """Compare CPU time per request."""
    plain = [service.loaded(options.seconds)]
    ratios: dict[float, list[float]] = {share: [] for share in _SHARES}
    for _ in range(options.rounds):
        for share in _SHARES:
            with service.trial({**_STAGE, "share": share}):
                during = service.loaded(options.seconds)
            plain.append(service.loaded(options.seconds))
            ratios[share].append(during.cpu_us / ((plain[-2].cpu_us + plain[-1].cpu_us) / 2))
    cpu_us = median(phase.cpu_us for phase in plain)
    without = [later.cpu_us / before.cpu_us for before, later in pairwise(plain)]
    choosing, computing = (ratios[share] for share in _SHARES)
    return [
        Aim("CPU of a request without a trial, µs", [cpu_us]),
        Aim("CPU of the question whether there is a trial, share of it", [_question_us() / cpu_us], 0.01),
        Aim("CPU of choosing and counting with a canary open, share of it", [_canary_us() / cpu_us], 0.03),
        Aim("CPU of the looks for new trials, share of a core", [_look_s() * _LOOKS_PER_S], 0.01),
        Aim("CPU with a canary open that no key belongs to, ratio", [median(choosing)], 1.03),
        Aim("  each round", choosing),
        Aim("CPU with a canary that computes a tenth, ratio", [median(computing)]),
        Aim("  each round", computing),
        Aim("  one phase without a trial to the next", without),
    ]


def _shadow(service: Service, options: Options) -> list[Aim]:
    """Compare latency at half load."""
    half = service.loaded(options.seconds).rate / 2
    plain, during = [service.loaded(options.seconds, half)], []
    shares, dropped = [], 0
    for _ in range(options.rounds):
        with service.trial({**_STAGE, "shadow": 1.0}) as shown:
            during.append(service.loaded(options.seconds, half))
            time.sleep(_WRITTEN_S)
            counts = shown()["evidence"]["stages"][0]["arms"]
        shares.append(counts["shadow"]["samples"] / counts["live"]["samples"])
        dropped += counts["shadow"]["dropped"]
        plain.append(service.loaded(options.seconds, half))
    ratios = [_p99_ms(beside) / _mean_p99_ms(*around) for beside, around in zip(during, pairwise(plain), strict=True)]
    chance = [_p99_ms(later) / _p99_ms(before) for before, later in pairwise(plain)]
    return [
        Aim("requests a second at half load", [half]),
        Aim("p99 without a trial, ms", [median(map(_p99_ms, plain))]),
        Aim("p99 with every sample shadowed, ms", [median(map(_p99_ms, during))]),
        Aim("  ratio to the phases before and after it, median of the rounds", [median(ratios)], 1.1),
        Aim("  each round", ratios),
        Aim("  of a phase without a trial to the one before it, median", [median(chance)]),
        Aim("    each", chance),
        Aim("  p50, ratio", [_ms(during, 0.5) / _ms(plain, 0.5)]),
        Aim("  p99 of all requests, ratio", [_ms(during, 0.99) / _ms(plain, 0.99)]),
        Aim("  p99 of single phases without a trial, ms", [_ms([one], 0.99) for one in plain]),
        Aim("  p99 of single phases beside a shadow, ms", [_ms([one], 0.99) for one in during]),
        Aim("  samples that the shadow computed, share", shares),
        Aim("  samples that it dropped", [dropped]),
        Aim("answers other than 200", [sum(phase.bad for phase in [*plain, *during])], 0),
    ]


def _p99_ms(phase: Phase) -> float:
    """Return the median p99 of half a second."""
    return median(p99s_ms(phase.answers))


def _mean_p99_ms(one: Phase, other: Phase) -> float:
    return (_p99_ms(one) + _p99_ms(other)) / 2


def _ms(phases: Sequence[Phase], share: float) -> float:
    return percentile([answer.took_s * 1e3 for phase in phases for answer in phase.answers], share)


def _question_us() -> float:
    """Measure what the fast path does about trials for a request of a model without one, in µs."""
    canaries: dict[str, object] = {}
    setup, statement = "canary = show = None", "canary = canaries.get('mnist')\nif canary is not None: pass"
    asked = timeit.repeat(f"{statement}\nif canary is not None or show is not None: pass", setup, globals=locals())
    return min(asked)  # seconds for a million are µs for one


def _canary_us() -> float:
    """Measure what a request that the live version answers pays for an open canary, in µs."""
    stages = (Stage(shadow=0.0, share=_SHARES[0], for_s=1.0, samples=1),)
    trial = Trial(
        id=uuid4().hex, model="mnist", version=2, live=1, stages=stages, stage=0, state="canary", attempt=0,
        key_header=None, conditions=Conditions(), when_undecided="pause", max_s=None, opened_at=0.0, stage_since=0.0,
        elapsed_s=0.0, decide_by=None, finished_at=None, by="", job=None, reason="",
    )  # fmt: skip
    pixels = np.zeros((1, 1, 28, 28), np.float32)
    samples = Samples(pixels, {}, 1, pixels)
    answer = callers.Answer(1, np.zeros((1, 10), np.float32), True, 1e-4, 1e-4, 1)
    candidate, nobody, headers, stem = cast("Loaded", object()), cast("Confirm", None), {b"host": b"h"}, uuid4().hex
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        canary = TrialCanary(trial, candidate, TrialCounts(store), nobody, lambda *_: None)
        statement = "canary.ended(canary.candidate_for(headers, stem), headers, stem, samples, answer)"
        took = timeit.repeat(statement, number=100_000, globals=locals())
        store.close()
    return min(took) * 10  # seconds for 100,000 are tens of µs for one


def _look_s() -> float:
    """Measure a look for new trials, in s of CPU."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.migrate()
        trials = Trials(store)

        async def look() -> float:
            await asyncio.to_thread(trials.open)
            began = time.process_time()
            for _ in range(_LOOKS):
                await asyncio.to_thread(trials.open)
            return (time.process_time() - began) / _LOOKS

        try:
            return asyncio.run(look())
        finally:
            store.close()
