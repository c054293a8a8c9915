"""Tables of the serving benchmark: medians over the rounds, ratios taken within each round."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks import batches, drawings, floors
from benchmarks.load import Load
from benchmarks.report import table
from benchmarks.servers import MOSEC

CONNECTIONS = (1, 16, 64, 256)
AT = 64  # connections at which CPU time and latencies are measured


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Result of one server in one round. `resident_mb`: memory of each process, largest first."""

    start_s: float
    loads: Mapping[int, Load]
    cpu_us: float
    resident_mb: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Round:
    """Result of one round: each server, the floors (µs), batches (pictures per second), and `drawings`."""

    visits: Mapping[str, Visit]
    floors: Mapping[str, float]
    batches: Mapping[str, float]
    drawings: Mapping[str, float] = field(default_factory=dict)


def tables(
    rounds: Sequence[Round],
    faults: Mapping[str, str],
    unbatched: Mapping[str, str],
    names: Sequence[str],
) -> str:
    """Return all tables. `faults`: why a server was not measured; `unbatched`: the same for batches."""
    parts = [
        f"  POST of one 28x28 PNG, medians of {len(rounds)} rounds, every response checked",
        _throughput(rounds, faults, names),
        f"  CPU time and latency at {AT} connections, memory at the end, and start time",
        _costs(rounds, faults, names),
        "  floors (lower bounds), µs of CPU per request",
        floors.table_of([seen.floors for seen in rounds], _over(rounds, lambda seen: seen.visits["bare"].cpu_us)),
        "  one request of 256 pictures at a time, pictures per second",
        batches.table_of([seen.batches for seen in rounds], unbatched),
        "  one drawing of 280 x 280 per request",
        drawings.table_of([seen.drawings for seen in rounds]),
        "  aims",
        _aims(rounds),
    ]
    return "\n\n".join(parts)


def _over(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """Return the median over the rounds that have the figure; NaN if none has."""
    values = []
    for seen in rounds:
        try:
            values.append(figure(seen))
        except (KeyError, ValueError, ZeroDivisionError):
            continue
    return median(values) if values else math.nan


def _rate(name: str, connections: int) -> Callable[[Round], float]:
    return lambda seen: seen.visits[name].loads[connections].rate


def _ratio(connections: int, others: Sequence[str]) -> Callable[[Round], float]:
    """Return a function of a round: this service's rate / the best rate of the others."""

    def ratio(seen: Round) -> float:
        best = max(seen.visits[other].loads[connections].rate for other in others if other in seen.visits)
        return seen.visits["torchloop"].loads[connections].rate / best

    return ratio


_FP32 = "torchloop, fp32"
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
        ("p50 ms", ".2f", lambda visit: visit.loads[AT].p50_ms),
        ("p99 ms", ".2f", lambda visit: visit.loads[AT].p99_ms),
        ("p99/p50", ".2f", lambda visit: visit.loads[AT].p99_ms / visit.loads[AT].p50_ms),
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
    """Return the table of aims: each with the result, and whether it is met."""
    at_least = [
        *(
            (f"{aim:g}x handwritten at {count}", aim, _ratio(count, ["handwritten"]))
            for count, aim in ((1, 2), (64, 3.5))
        ),
        *(
            (f"{aim:g}x mosec at {count}", aim, _ratio(count, _MOSECS))
            for count, aim in ((1, 2), (16, 2), (64, 2), (64, 2.8), (256, 1))
        ),
        ("0.85x ONNX Runtime alone on all cores, 256 pictures", 0.85, _to_bare),
        ("2x litserve, 256 pictures", 2, lambda seen: batches.to_litserve(seen.batches)),
        ("0.8x handwritten, drawings of 280 x 280", 0.8, lambda seen: drawings.to_handwritten(seen.drawings)),
    ]
    at_most: list[tuple[str, float, Callable[[Round], float]]] = [
        ("320 µs CPU/request at 64, in float32", 320, lambda seen: seen.visits[_FP32].cpu_us),
        (
            "95 µs CPU/request at 64, in the form that the gate lets in",
            95,
            lambda seen: seen.visits["torchloop"].cpu_us,
        ),
        ("1.6x the sum of the floors", 1.6, _to_floors),
        ("1.3x p99 of small pictures beside drawings", 1.3, lambda seen: drawings.slowed(seen.drawings)),
        ("p99 2.5x p50 at 64", 2.5, lambda seen: _spread(seen.visits["torchloop"].loads[AT])),
        ("500 MB in two web processes", 500, lambda seen: sum(seen.visits["torchloop"].resident_mb[:2])),
        ("120 MB in one web process, in float32", 120, lambda seen: seen.visits[_FP32].resident_mb[0]),
        ("1 s to the first answer, second start", 1, lambda seen: seen.visits["torchloop"].start_s),
    ]
    rows = [_aim(f"at least {name}", aim, _over(rounds, figure), 1) for name, aim, figure in at_least]
    rows += [_aim(f"at most {name}", aim, _over(rounds, figure), -1) for name, aim, figure in at_most]
    return table(["aim", "reached", ""], rows)


def _aim(name: str, aim: float, reached: float, sign: int) -> list[str]:
    """Return a row. `sign`: 1 if higher is better, -1 if lower is better."""
    if math.isnan(reached):
        return [name, "not measured"]
    return [name, f"{reached:.3g}", "yes" if sign * reached >= sign * aim else "no"]


def _spread(seen: Load) -> float:
    return seen.p99_ms / seen.p50_ms


def _to_bare(seen: Round) -> float:
    return batches.to_bare(seen.batches, batches.THREADS[-1])


def _to_floors(seen: Round) -> float:
    """Return the CPU time per request at 64 connections / the sum of the floors of the same round."""
    return seen.visits[_FP32].cpu_us / floors.total(seen.floors, seen.visits["bare"].cpu_us)
