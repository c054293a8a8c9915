"""Overload: three times the sustainable load; rate and latency of admitted requests, cost of a refusal, and recovery.

`python -m service` with one web process, TORCHLOOP_QUEUE_LIMIT as in the environment. First a closed-loop load measures
the sustainable rate and its latency ("sustained"). Then each round is an open-loop load: half of that rate (calm),
three times that rate (flood), half again (after). A flood begins with a queue that fills up, as in a burst, and is then
cut: "settled" leaves out the first second. After another flood, the callers of the closed loop come back and send the
next request as soon as they are answered, also if they are refused ("retrying", from 2 s on: "served again"). The run
fails if a response is neither 200 nor 429; a broken connection counts as lost. Client and service share the machine.

CPU time is that of the service: an answer's is measured in the sustained phase, a refusal's is what the flood takes
beyond its answers.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from urllib.parse import urlsplit

import psutil

from benchmarks import Options
from benchmarks.loop import percentile
from benchmarks.openloop import LOST, Answer, Client
from benchmarks.report import Aim, table
from benchmarks.servers import SEVEN, cpu_s
from benchmarks.service_process import running_service

_CALLERS = 64
_FLOOD_S, _SETTLED_S, _RECOVERED_S, _RETRYING_S = 10.0, 1.0, 2.0, 4.0
_PHASES = ("sustained", "calm", "flood", "settled", "after", "recovered", "retrying", "served again")


@dataclass(frozen=True)
class Phase:
    """Answers of one phase of one round. `cpu_s`: CPU time of the service; 0 if the phase is part of another."""

    answers: Sequence[Answer]
    seconds: float
    cpu_s: float = 0.0

    def count(self, status: int) -> int:
        """Return the number of answers with this status."""
        return sum(answer.status == status for answer in self.answers)

    def end_ms(self, status: int, share: float) -> float:
        """Return a percentile of the latencies of answers with this status. `share`: 0 to 1."""
        return percentile([answer.took_s * 1000 for answer in self.answers if answer.status == status], share)

    def since(self, second: float) -> "Phase":
        """Return the part from a second on."""
        return Phase([answer for answer in self.answers if answer.at > second], self.seconds - second)


Round = dict[str, Phase]


def main(options: Options) -> str:
    """Return the table. Raises SystemExit with it if a response was neither 200 nor 429."""
    given = {name: os.environ[name] for name in ("TORCHLOOP_QUEUE_LIMIT",) if name in os.environ}
    with running_service(given) as (url, process):
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        service = psutil.Process(process.pid)
        with Client(where.hostname, where.port, "/predict/mnist", SEVEN.content, SEVEN.media_type) as client:
            client.closed_loop(_CALLERS, 1)  # warm-up
            rounds = [_round(client, service, options.seconds) for _ in range(options.rounds)]
    text = table_of(rounds)
    odd = {answer.status for seen in rounds for phase in seen.values() for answer in phase.answers} - {200, 429, LOST}
    if odd:
        raise SystemExit(f"overload\n{text}\n  other statuses: {sorted(odd)}")
    return text


def _round(client: Client, service: psutil.Process, seconds: float) -> Round:
    def measured(run: Callable[[], list[Answer]], seconds: float) -> Phase:
        before = cpu_s(service)
        answers = run()
        return Phase(answers, seconds, cpu_s(service) - before)

    def closed(seconds: float) -> Phase:
        return measured(lambda: client.closed_loop(_CALLERS, seconds), seconds)

    def opened(factor: float, seconds: float) -> Phase:
        return measured(lambda: client.open_loop(rate * factor, seconds), seconds)

    seen = {"sustained": closed(seconds)}
    rate = len(seen["sustained"].answers) / seconds
    seen |= {"calm": opened(0.5, seconds), "flood": opened(3.0, _FLOOD_S), "after": opened(0.5, 4.0)}
    seen |= {"settled": seen["flood"].since(_SETTLED_S), "recovered": seen["after"].since(_RECOVERED_S)}
    opened(3.0, _RECOVERED_S)
    seen["retrying"] = closed(_RETRYING_S)
    seen["served again"] = seen["retrying"].since(_RECOVERED_S)
    return seen


def table_of(rounds: Sequence[Round]) -> str:
    """Return one row per phase with medians over the rounds, and the aims."""
    rows = []
    for name in _PHASES:
        seen = [one[name] for one in rounds]
        counts = [median(phase.count(status) for phase in seen) for status in (200, 429)]
        lost = sum(phase.count(LOST) for phase in seen)
        ends = [median(phase.end_ms(*end) for phase in seen) for end in ((200, 0.5), (200, 0.99), (429, 0.99))]
        numbers = [*(f"{count:.0f}" for count in counts), f"{lost}", *(f"{end:.1f}" for end in ends)]
        rows.append([name, f"{median(len(phase.answers) for phase in seen):.0f}", *numbers])
    head = ["phase", "requests", "200", "429", "lost", "p50 ms", "p99 ms", "429: p99 ms"]
    rate = median(one["sustained"].count(200) / one["sustained"].seconds for one in rounds)
    title = f"  sustained with {_CALLERS} callers: {rate:.0f} requests/s; medians of {len(rounds)} rounds"
    costs = [
        ["an answer", f"{median(map(_answer_us, rounds)):.0f}"],
        ["a refusal", f"{median(map(_refusal_us, rounds)):.1f}"],
    ]
    aims = table(["", "reached", "aim", ""], [aim.cells() for aim in _aims(rounds)])
    return "\n\n".join([f"{title}\n{table(head, rows)}", table(["the service's CPU time for", "µs"], costs), aims])


def _aims(rounds: Sequence[Round]) -> list[Aim]:
    def p99(name: str, calm: str) -> list[float]:
        return [one[name].end_ms(200, 0.99) / one[calm].end_ms(200, 0.99) for one in rounds]

    return [
        Aim("p99 of admitted requests in the flood / sustained", p99("flood", "sustained"), 2),
        Aim(f"the same from {_SETTLED_S:g} s on", p99("settled", "sustained"), 2),
        Aim("requests/s answered in the flood / sustained", [_rates(one, "flood") for one in rounds], 0.6, True),
        Aim(f"p99 from {_RECOVERED_S:g} s after the flood on / calm", p99("recovered", "calm"), 2),
        Aim(f"refusals from {_RECOVERED_S:g} s after it on", [float(one["recovered"].count(429)) for one in rounds], 0),
        Aim(
            f"refusals of {_CALLERS} callers who retry at once, from {_RECOVERED_S:g} s on",
            [float(one["served again"].count(429)) for one in rounds],
            0,
        ),
        Aim("requests/s answered to them / sustained", [_rates(one, "served again") for one in rounds], 0.9, True),
    ]


def _rates(one: Round, name: str) -> float:
    return one[name].count(200) / one[name].seconds * one["sustained"].seconds / one["sustained"].count(200)


def _answer_us(one: Round) -> float:
    return one["sustained"].cpu_s / one["sustained"].count(200) * 1e6


def _refusal_us(one: Round) -> float:
    flood = one["flood"]
    return (flood.cpu_s * 1e6 - flood.count(200) * _answer_us(one)) / max(1, flood.count(429))
