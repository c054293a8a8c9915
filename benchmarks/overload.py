"""Overload: three times the sustainable load; rate and latency of admitted requests, and recovery.

`python -m service` with one web process, TORCHLOOP_QUEUE_LIMIT as in the environment. First a closed-loop load measures
the sustainable rate and its latency ("sustained"). Then each round is an open-loop load: half of that rate (calm),
three times that rate (flood), half again (after). A flood begins with a queue that fills up, as in a burst, and is then
cut: "settled" leaves out the first second. The run fails if a response is neither 200 nor 429; a broken connection
counts as lost. Client and service share the machine.
"""

import os
from collections.abc import Sequence
from statistics import median
from urllib.parse import urlsplit

from benchmarks import Options
from benchmarks.loop import percentile
from benchmarks.openloop import LOST, Answer, Client
from benchmarks.report import table
from benchmarks.servers import SEVEN
from benchmarks.service_process import running_service

_CALLERS = 64
_FLOOD_S, _SETTLED_S, _RECOVERED_S = 10.0, 1.0, 2.0
Phases = dict[str, list[list[Answer]]]


def main(options: Options) -> str:
    """Return the table. Raises SystemExit with it if a response was neither 200 nor 429."""
    given = {name: os.environ[name] for name in ("TORCHLOOP_QUEUE_LIMIT",) if name in os.environ}
    with running_service(given) as (url, _):
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        with Client(where.hostname, where.port, "/predict/mnist", SEVEN.content, SEVEN.media_type) as client:
            phases = _observe(client, options)
    text = table_of(phases, options.seconds)
    odd = {answer.status for rounds in phases.values() for seen in rounds for answer in seen} - {200, 429, LOST}
    if odd:
        raise SystemExit(f"overload\n{text}\n  other statuses: {sorted(odd)}")
    return text


def _observe(client: Client, options: Options) -> Phases:
    client.closed_loop(_CALLERS, 1)  # warm-up
    phases: Phases = {name: [] for name in ("sustained", "calm", "flood", "settled", "after", "recovered")}
    for _ in range(options.rounds):
        phases["sustained"].append(client.closed_loop(_CALLERS, options.seconds))
        sustained = len(phases["sustained"][-1]) / options.seconds
        for name, factor, seconds in (("calm", 0.5, options.seconds), ("flood", 3.0, _FLOOD_S), ("after", 0.5, 4.0)):
            phases[name].append(client.open_loop(sustained * factor, seconds))
        phases["settled"].append([answer for answer in phases["flood"][-1] if answer.at > _SETTLED_S])
        phases["recovered"].append([answer for answer in phases["after"][-1] if answer.at > _RECOVERED_S])
    return phases


def table_of(phases: Phases, seconds: int) -> str:
    """Return one row per phase with medians over the rounds, and the aims."""
    rows = []
    for name, rounds in phases.items():
        counts = [median(_count(seen, status) for seen in rounds) for status in (200, 429)]
        lost = sum(_count(seen, LOST) for seen in rounds)
        ends = [_over(rounds, 200, 0.5), _over(rounds, 200, 0.99), _over(rounds, 429, 0.99)]
        numbers = [*(f"{count:.0f}" for count in counts), f"{lost}", *(f"{end:.1f}" for end in ends)]
        rows.append([name, f"{median(len(seen) for seen in rounds):.0f}", *numbers])
    sustained = median(len(seen) for seen in phases["sustained"]) / seconds
    p99 = {name: _over(rounds, 200, 0.99) for name, rounds in phases.items()}
    aims = [
        ["p99 of admitted requests in the flood / sustained", f"{p99['flood'] / p99['sustained']:.2f}"],
        [f"the same from {_SETTLED_S:g} s on", f"{p99['settled'] / p99['sustained']:.2f}"],
        [f"p99 from {_RECOVERED_S:g} s after the flood on / calm", f"{p99['recovered'] / p99['calm']:.2f}"],
    ]
    head = ["phase", "requests", "200", "429", "lost", "p50 ms", "p99 ms", "429: p99 ms"]
    count = len(phases["sustained"])
    title = f"  sustained with {_CALLERS} callers: {sustained:.0f} requests/s; medians of {count} rounds"
    return "\n".join([title, table(head, rows), "", table(["aim: at most 2", "reached"], aims)])


def _count(answers: Sequence[Answer], status: int) -> int:
    return sum(answer.status == status for answer in answers)


def _over(rounds: Sequence[Sequence[Answer]], status: int, share: float) -> float:
    """Return the median over the rounds of a latency percentile, in ms. `share`: 0 to 1."""
    return median(percentile([one.took_s * 1000 for one in seen if one.status == status], share) for seen in rounds)
