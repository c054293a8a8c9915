"""One 28x28 picture per request: this service, a hand-written FastAPI route, LitServe and mosec, and lower bounds.

wrk sends the same picture over 1, 16, 64 and 256 connections and checks every answer. In each round every server is
started, measured at each number of connections, and stopped: LitServe takes a third of a core while idle, so only
one runs at a time. All serve the same weights with two processes that compute. A figure is the median over the
rounds; a ratio is taken within each round. CPU and memory are those of the server's whole process tree, wrk's excluded.
mosec is measured with and without batches: the ratio to mosec is that to the better of the two.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks import Options, batches, floors, load
from benchmarks.load import Load, LoadError
from benchmarks.servers import (
    BARE,
    HANDWRITTEN,
    LITSERVE,
    MOSEC,
    NotInstalled,
    Running,
    Server,
    started,
    torchloop,
)
from benchmarks.service_process import NotStarted
from benchmarks.serving_tables import AT, CONNECTIONS, Round, Visit, tables


def main(options: Options) -> str:
    """Return the tables, or a message if wrk is missing."""
    if not load.is_there():
        return load.MISSING
    faults: dict[str, str] = {}
    unbatched: dict[str, str] = {}  # what failed with batches only
    with TemporaryDirectory() as store:
        servers = [torchloop(Path(store)), HANDWRITTEN, *MOSEC, LITSERVE, BARE]
        for server in servers:  # the first start writes stores and bytecode
            _attempt(server, faults, _start)
        rounds = []
        for turn in range(options.rounds):
            visits = _visits(servers, faults, options.seconds, turn)
            rates = _batches([torchloop(Path(store)), LITSERVE], unbatched, options.seconds)
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
    """Pictures a second, for each way to compute 256 at once; without a server, the mean of before and after."""
    before, rates = batches.bare(seconds), {}

    def measure(server: Server) -> None:
        rates.update(batches.through(server, seconds))

    for server in servers:
        _attempt(server, faults, measure)
    after = batches.bare(seconds)
    return {**{name: (before[name] + after[name]) / 2 for name in after}, **rates}


def _attempt(server: Server, faults: dict[str, str], action: Callable[[Server], None]) -> None:
    """Run `action`; a server that fails is recorded in `faults` and left out from then on."""
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
        load.send(running.url, server.body, (server.path,), connections=AT, seconds=1)
        loads, cpu_us = {}, 0.0
        for connections in CONNECTIONS:
            loads[connections], spent = _measure(running, server, connections, seconds)
            cpu_us = spent if connections == AT else cpu_us
        return Visit(start_s=running.start_s, loads=loads, cpu_us=cpu_us, resident_mb=running.resident_mb())


def _measure(running: Running, server: Server, connections: int, seconds: int) -> tuple[Load, float]:
    """What wrk saw, and the server's CPU time a request, in µs."""
    before = running.cpu_s()
    seen = load.send(running.url, server.body, (server.path,), connections=connections, seconds=seconds)
    return seen, (running.cpu_s() - before) / max(1, seen.requests) * 1e6
