"""Three times the load that the service carries: who is answered, how fast, and how soon all is well again.

A really started `python -m service`, one web process, TORCHLOOP_QUEUE_LIMIT as in the environment. First, callers that
wait for each answer before they ask again measure what it carries. Then each round is an open-loop load, a request
every 1 / rate seconds whether or not the ones before were answered: half of what it carries (calm), three times that
(flood), half again (after). Fails where an answer is neither 200 nor 429; a connection that broke counts as lost.
Client and service share the machine.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.loop import percentile
from models.catalog import PRETRAINED
from tests.fakes import running_server

_CALLERS = 32
_MEASURE_S, _PHASE_S, _AFTER_S = 3.0, 4.0, 4.0
_RECOVERED_S = 2.0
_LOST = 0  # instead of a status
_KEEP_S = 2.0  # shorter than the service's 5 s


class Answer(NamedTuple):
    """One request: seconds since the phase began, seconds it took, its status."""

    at: float
    took_s: float
    status: int


def main(*, data: Path, rounds: int) -> str:  # noqa: ARG001
    """The table. Raises SystemExit with it where an answer was neither 200 nor 429."""
    given = {name: os.environ[name] for name in ("TORCHLOOP_QUEUE_LIMIT",) if name in os.environ}
    with running_server(given) as url:
        return asyncio.run(_observe(url, rounds))


async def _observe(url: str, rounds: int) -> str:
    host, port = url.removeprefix("http://").split(":")
    ask = _Asker(host, int(port))
    carried = await _carried(ask)
    phases: dict[str, list[Answer]] = {"calm": [], "flood": [], "after": []}
    for _ in range(rounds):
        for name, factor, seconds in (("calm", 0.5, _PHASE_S), ("flood", 3.0, _PHASE_S), ("after", 0.5, _AFTER_S)):
            phases[name] += await _open_loop(ask, carried * factor, seconds)
    ask.close()
    return _table(carried, phases)


class _Asker:
    """POSTs one body over connections that are kept."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        body = (PRETRAINED / "seven.png").read_bytes()
        head = "POST /predict/mnist HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        head += f"Content-Length: {len(body)}"
        self._request = head.encode() + b"\r\n\r\n" + body
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self) -> int:
        reader, writer = self._young() or await asyncio.open_connection(*self._where)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        self._idle.append((time.perf_counter(), reader, writer))
        return int(head[9:12])

    def _young(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection that was used last; none where the service may be about to close it for being idle."""
        if self._idle and time.perf_counter() - self._idle[-1][0] < _KEEP_S:
            return self._idle.pop()[1:]
        self.close()
        return None

    def close(self) -> None:
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _carried(ask: _Asker) -> float:
    """Requests a second that callers get answered who each wait for the answer before they ask again."""
    answered = 0
    end = time.perf_counter() + _MEASURE_S

    async def call() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            await ask()
            answered += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(call())
    return answered / _MEASURE_S


async def _open_loop(ask: _Asker, rate: float, seconds: float) -> list[Answer]:
    """The answers to `rate` requests a second; all are waited for."""
    answers: list[Answer] = []
    start = time.perf_counter()

    async def call() -> None:
        began = time.perf_counter()
        try:
            status = await ask()
        except (OSError, asyncio.IncompleteReadError):
            status = _LOST
        answers.append(Answer(began - start, time.perf_counter() - began, status))

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0, start + number / rate - time.perf_counter()))
            group.create_task(call())
    return answers


def _table(carried: float, phases: dict[str, list[Answer]]) -> str:
    """One line a phase. Raises SystemExit with it where a status is neither 200 nor 429."""
    recovered = [answer for answer in phases["after"] if answer.at > _RECOVERED_S]
    lines = [
        f"  carried by {_CALLERS} callers: {carried:.0f} requests/s",
        "  phase        requests    200    429   lost    p50 ms    p99 ms  429 p99 ms",
    ]
    for name, answers in {**phases, "recovered": recovered}.items():
        taken, shed = (_latencies_ms(answers, status) for status in (200, 429))
        lost = sum(answer.status == _LOST for answer in answers)
        ends = f"{percentile(taken, 0.5):9.1f} {percentile(taken, 0.99):9.1f} {percentile(shed, 0.99):9.1f}"
        lines.append(f"  {name:10} {len(answers):10} {len(taken):6} {len(shed):6} {lost:6} {ends}")
    table = "\n".join(lines)
    odd = {answer.status for answers in phases.values() for answer in answers} - {200, 429, _LOST}
    if odd:
        raise SystemExit(f"overload\n{table}\n  also answered: {sorted(odd)}")
    return table


def _latencies_ms(answers: Sequence[Answer], status: int) -> list[float]:
    return [answer.took_s * 1000 for answer in answers if answer.status == status]
