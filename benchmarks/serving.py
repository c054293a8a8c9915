"""Throughput and latency with one 28x28 picture per request: this service, other servers, and lower bounds.

The other servers are a hand-written FastAPI route, LitServe and mosec. wrk sends the same picture over 1, 16, 64 and
256 connections and checks every response. In each round every server is started, measured at each number of
connections, and stopped: LitServe uses a third of a core while idle, so only one runs at a time. All serve the same
weights with two processes, this service also in float32 only. A figure is the median over the rounds; a ratio is taken
within each round. CPU time and memory are of the server's process tree, without wrk. mosec is measured with and without
batching; the ratio to mosec is that to the faster of the two.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Options, batches, drawings, floors, load
from benchmarks.load import Load
from benchmarks.servers import (
    BARE,
    HANDWRITTEN,
    LITSERVE,
    MOSEC,
    Running,
    Server,
    attempt,
    in_turn,
    started,
    torchloop,
)
from benchmarks.serving_tables import AT, CONNECTIONS, Round, Visit, tables


def main(options: Options) -> str:
    """Return the tables, or a message if wrk is missing."""
    if not load.is_installed():
        return load.MISSING
    faults: dict[str, str] = {}
    unbatched: dict[str, str] = {}  # servers that failed only with batches, and why
    undrawn: dict[str, str] = {}  # the same with drawings
    with TemporaryDirectory() as store:
        servers = [torchloop(Path(store)), torchloop(Path(store), form="fp32"), HANDWRITTEN, *MOSEC, LITSERVE, BARE]
        for server in servers:  # the first start writes stores and bytecode
            attempt(server, faults, _start)
        rounds = []
        for turn in range(options.rounds):
            visits = _visits(servers, faults, options.seconds, turn)
            rates = _batches([torchloop(Path(store)), LITSERVE], unbatched, options.seconds)
            drawn = _drawings([torchloop(Path(store)), HANDWRITTEN], undrawn, options.seconds)
            rounds.append(Round(visits=visits, floors=floors.floors(), batches=rates, drawings=drawn))
    return tables(rounds, faults, unbatched, [server.name for server in servers])


def _start(server: Server) -> None:
    with started(server):
        pass


def _visits(servers: Sequence[Server], faults: dict[str, str], seconds: int, turn: int) -> dict[str, Visit]:
    """Measure every server."""
    visits: dict[str, Visit] = {}

    def visit(server: Server) -> None:
        visits[server.name] = _visit(server, seconds)

    for server in in_turn(servers, turn):
        attempt(server, faults, visit)
    return visits


def _batches(servers: Sequence[Server], faults: dict[str, str], seconds: int) -> dict[str, float]:
    """Measure pictures per second with 256 per request: each server, and ONNX Runtime alone before and after them."""
    before, rates = batches.bare(seconds), {}

    def measure(server: Server) -> None:
        rates.update(batches.through(server, seconds))

    for server in servers:
        attempt(server, faults, measure)
    after = batches.bare(seconds)
    return {**{name: (before[name] + after[name]) / 2 for name in after}, **rates}


def _drawings(servers: Sequence[Server], faults: dict[str, str], seconds: int) -> dict[str, float]:
    """Measure drawings of 280 x 280; see `drawings.through`."""
    found: dict[str, float] = {}

    def measure(server: Server) -> None:
        found.update(drawings.through(server, seconds))

    for server in servers:
        attempt(server, faults, measure)
    return found


def _visit(server: Server, seconds: int) -> Visit:
    with started(server) as running:
        running.settle()
        load.send(running.url, server.body, (server.path,), connections=AT, seconds=1)
        loads, cpu_us = {}, 0.0
        for connections in CONNECTIONS:
            loads[connections], spent = _measure(running, server, connections, seconds)
            cpu_us = spent if connections == AT else cpu_us
        return Visit(start_s=running.start_s, loads=loads, cpu_us=cpu_us, resident_mb=running.resident_mb())


def _measure(running: Running, server: Server, connections: int, seconds: int) -> tuple[Load, float]:
    """Return the result of wrk, and the server's CPU time per request, in µs."""
    before = running.cpu_s()
    seen = load.send(running.url, server.body, (server.path,), connections=connections, seconds=seconds)
    return seen, (running.cpu_s() - before) / max(1, seen.requests) * 1e6
