"""One 28x28 picture a request: this service, a FastAPI route written by hand, LitServe and mosec, beside the floors.

wrk sends the same picture over 1, 16, 64 and 256 connections and checks every answer. In each round every server is
started, measured at each number of connections, and stopped: LitServe takes a third of a core while idle, so none
waits beside another. All serve the same weights with two processes that compute. A figure is the median over the
rounds; a ratio is taken within each round. CPU and memory are those of the server's whole process tree, wrk's excluded.
Beside mosec with batches stands mosec without: the ratio to mosec is that to the better of the two.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from benchmarks import Options, batches, floors, load
from benchmarks.load import Load, LoadError
from benchmarks.report import table
from benchmarks.servers import (
    BARE,
    HANDWRITTEN,
    LITSERVE,
    MOSEC,
    NotInstalled,
    NotStarted,
    Running,
    Server,
    started,
    torchloop,
)

CONNECTIONS = (1, 16, 64, 256)
_AT = 64  # where CPU and latencies are read


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One server in one round. `resident_mb`: each process's, largest first."""

    start_s: float
    loads: Mapping[int, Load]
    cpu_us: float
    resident_mb: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round saw of each server, of the floors (µs), and of batches (pictures a second)."""

    visits: Mapping[str, Visit]
    floors: Mapping[str, float]
    batches: Mapping[str, float]


def main(options: Options) -> str:
    """The tables. Where wrk is missing, it says so instead."""
    if not load.is_there():
        return load.MISSING
    faults: dict[str, str] = {}
    unbatched: dict[str, str] = {}  # what failed with batches only
    with TemporaryDirectory() as store:
        servers = [torchloop(Path(store)), HANDWRITTEN, *MOSEC, LITSERVE, BARE]
        for server in servers:  # the first start writes stores and bytecode
            _attempt(server, faults, _start)
        batched = [torchloop(Path(store)), torchloop(Path(store), processes=1), LITSERVE]
        rounds = []
        for turn in range(options.rounds):
            visits = _visits(servers, faults, options.seconds, turn)
            rates = _batches(batched, unbatched, options.seconds)
            rounds.append(Round(visits=visits, floors=floors.floors(), batches=rates))
    return tables(rounds, faults, unbatched, [server.name for server in servers])


def _start(server: Server) -> None:
    with started(server):
        pass


def _visits(servers: Sequence[Server], faults: dict[str, str], seconds: int, turn: int) -> dict[str, Visit]:
    """Each round begins with another server, so that none always comes after the same one."""
    first = turn % len(servers)
    visits: dict[str, Visit] = {}

    def visit(server: Server) -> None:
        visits[server.name] = _visit(server, seconds)

    for server in [*servers[first:], *servers[:first]]:
        _attempt(server, faults, visit)
    return visits


def _batches(servers: Sequence[Server], faults: dict[str, str], seconds: int) -> dict[str, float]:
    """Pictures a second, for each way to compute 256 at once."""
    rates = batches.bare(seconds)

    def measure(server: Server) -> None:
        rates.update(batches.through(server, seconds))

    for server in servers:
        _attempt(server, faults, measure)
    return rates


def _attempt(server: Server, faults: dict[str, str], action: Callable[[Server], None]) -> None:
    """A server that fails is told of once, and left out from then on."""
    if server.name in faults:
        return
    sys.stderr.write(f"serving: {server.name}\n")
    try:
        action(server)
    except NotInstalled as err:
        faults[server.name] = f"not installed: {err}"
    except NotStarted as err:
        faults[server.name] = f"not started: {err}"
    except (LoadError, psutil.Error) as err:
        faults[server.name] = f"not measured: {err}"


def _visit(server: Server, seconds: int) -> Visit:
    with started(server) as running:
        running.settle()
        load.send(running.url, server.body, (server.path,), connections=_AT, seconds=1)
        loads, cpu_us = {}, 0.0
        for connections in CONNECTIONS:
            loads[connections], spent = _measure(running, server, connections, seconds)
            cpu_us = spent if connections == _AT else cpu_us
        return Visit(start_s=running.start_s, loads=loads, cpu_us=cpu_us, resident_mb=running.resident_mb())


def _measure(running: Running, server: Server, connections: int, seconds: int) -> tuple[Load, float]:
    """What wrk saw, and the server's CPU time a request, in µs."""
    before = running.cpu_s()
    seen = load.send(running.url, server.body, (server.path,), connections=connections, seconds=seconds)
    return seen, (running.cpu_s() - before) / max(1, seen.requests) * 1e6


def tables(
    rounds: Sequence[Round], faults: Mapping[str, str], unbatched: Mapping[str, str], names: Sequence[str]
) -> str:
    """Everything, as text. Faults are by server; `unbatched` are those with batches."""
    parts = [
        f"  POST of one 28x28 PNG, medians of {len(rounds)} rounds, every answer checked",
        _throughput(rounds, faults, names),
        f"  the server at {_AT} connections, its memory after all, and its start",
        _costs(rounds, faults, names),
        "  floors, µs of CPU a request",
        floors.table_of([seen.floors for seen in rounds], _over(rounds, lambda seen: seen.visits["bare"].cpu_us)),
        "  one request of 256 pictures at a time, pictures a second",
        batches.table_of([seen.batches for seen in rounds], unbatched),
        "  aims",
        _aims(rounds),
    ]
    return "\n\n".join(parts)


def _over(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """The median over those rounds that have the figure; NaN where none has."""
    values = []
    for seen in rounds:
        try:
            values.append(figure(seen))
        except (KeyError, ValueError, ZeroDivisionError):
            continue
    return median(values) if values else float("nan")


def _rate(name: str, connections: int) -> Callable[[Round], float]:
    return lambda seen: seen.visits[name].loads[connections].rate


def _ratio(connections: int, others: Sequence[str]) -> Callable[[Round], float]:
    """In one round: this service's rate over that of the best of the others."""

    def ratio(seen: Round) -> float:
        best = max(seen.visits[other].loads[connections].rate for other in others if other in seen.visits)
        return seen.visits["torchloop"].loads[connections].rate / best

    return ratio


_MOSECS = [server.name for server in MOSEC]


def _throughput(rounds: Sequence[Round], faults: Mapping[str, str], names: Sequence[str]) -> str:
    head = ["requests/s over ... connections", *(f"{count}" for count in CONNECTIONS), "bad answers"]
    rows = []
    for name in names:
        if name in faults:
            rows.append([name, faults[name]])
            continue
        rates = [_over(rounds, _rate(name, count)) for count in CONNECTIONS]
        bad = sum(found.bad for seen in rounds if name in seen.visits for found in seen.visits[name].loads.values())
        rows.append([name, *(f"{rate:.0f}" for rate in rates), str(bad)])
    for label, others in (("handwritten", ["handwritten"]), ("mosec", _MOSECS)):
        ratios = [_over(rounds, _ratio(count, others)) for count in CONNECTIONS]
        rows.append([f"torchloop / {label}", *(f"{ratio:.2f}" for ratio in ratios), ""])
    return table(head, rows)


def _costs(rounds: Sequence[Round], faults: Mapping[str, str], names: Sequence[str]) -> str:
    figures: list[tuple[str, str, Callable[[Visit], float]]] = [
        ("µs CPU/request", ".0f", lambda visit: visit.cpu_us),
        ("p50 ms", ".2f", lambda visit: visit.loads[_AT].p50_ms),
        ("p99 ms", ".2f", lambda visit: visit.loads[_AT].p99_ms),
        ("p99/p50", ".2f", lambda visit: visit.loads[_AT].p99_ms / visit.loads[_AT].p50_ms),
        ("MB, all", ".0f", lambda visit: sum(visit.resident_mb)),
        ("MB, two largest", ".0f", lambda visit: sum(visit.resident_mb[:2])),
        ("start s", ".2f", lambda visit: visit.start_s),
    ]
    rows = [
        [name, *(format(_of(rounds, name, figure), spec) for _, spec, figure in figures)]
        for name in names
        if name not in faults
    ]
    return table(["", *(title for title, _, _ in figures)], rows)


def _of(rounds: Sequence[Round], name: str, figure: Callable[[Visit], float]) -> float:
    return _over(rounds, lambda seen: figure(seen.visits[name]))


def _aims(rounds: Sequence[Round]) -> str:
    """Each aim beside what was reached, and whether that is enough."""
    at_least = [
        *(
            (f"{aim:g}x handwritten at {count}", aim, _ratio(count, ["handwritten"]))
            for count, aim in ((1, 2), (64, 3.5))
        ),
        *(
            (f"{aim:g}x mosec at {count}", aim, _ratio(count, _MOSECS))
            for count, aim in ((1, 2), (16, 2), (64, 2), (256, 1))
        ),
        ("0.85x bare ONNX Runtime, 256 pictures", 0.85, lambda seen: batches.to_bare(seen.batches)),
        ("2x litserve, 256 pictures", 2, lambda seen: batches.to_litserve(seen.batches)),
    ]
    at_most: list[tuple[str, float, Callable[[Round], float]]] = [
        ("320 µs CPU/request at 64", 320, lambda seen: seen.visits["torchloop"].cpu_us),
        ("1.6x the sum of the floors", 1.6, _to_floors),
        ("p99 2.5x p50 at 64", 2.5, lambda seen: _spread(seen.visits["torchloop"].loads[_AT])),
        ("500 MB in two web processes", 500, lambda seen: sum(seen.visits["torchloop"].resident_mb[:2])),
        ("4 s to the first answer, second start", 4, lambda seen: seen.visits["torchloop"].start_s),
    ]
    rows = []
    for name, aim, figure in at_least:
        reached = _over(rounds, figure)
        rows.append([f"at least {name}", f"{reached:.3g}", "yes" if reached >= aim else "no"])
    for name, aim, figure in at_most:
        reached = _over(rounds, figure)
        rows.append([f"at most {name}", f"{reached:.3g}", "yes" if reached <= aim else "no"])
    return table(["aim", "reached", ""], rows)


def _spread(seen: Load) -> float:
    return seen.p99_ms / seen.p50_ms


def _to_floors(seen: Round) -> float:
    """CPU of one request at 64 connections over the sum of the floors of the same round."""
    return seen.visits["torchloop"].cpu_us / floors.total(seen.floors, seen.visits["bare"].cpu_us)
