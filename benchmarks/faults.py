"""Faults of several machines while 200 predictions a second come in, without retries of the client."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.balancer import Load
from benchmarks.objects import S3Process
from benchmarks.postgres import NoPostgres
from benchmarks.report import Aim
from benchmarks.servers import SEVEN
from benchmarks.service_process import NotStarted
from benchmarks.topology import Machine, NeverCame, Topology, register_again, wait
from service.store.database import Store

MODEL = "mnist"
PATH = f"/predict/{MODEL}"
HEAD = ("200 predictions a second, small PNG", "failed", "of", "slowest s", "aim", "met")
_SLOWEST_S = 2.5
_FOLLOWED_S = 2.0
_AROUND_S = 1.0  # load before an event and after it


class Faults:
    """Two services behind HAProxy, and the rows of what was done to them."""

    def __init__(self, stack: ExitStack, folder: Path, database_url: str, objects: S3Process | None) -> None:
        """Raises NoHAProxy."""
        self._folder = folder
        self._environ = {**objects.environment, "TORCHLOOP_ARTIFACTS": objects.url} if objects else {}
        self._topology = Topology(stack, {"store": str(folder / "feeder"), "database_url": database_url}, MODEL)
        self.machines = [self._start("a"), self._start("b")]
        store = Store(folder / ("a" if objects else "shared"), database_url)
        register_again(store, MODEL)
        store.close()
        self._topology.balance(folder)
        self._version = 1
        self.rows: list[Sequence[str]] = []
        self.followed_s: list[float] = []  # how long promotions and rollbacks took until all answered with the version
        self.early = 0  # that were answered before

    @property
    def port(self) -> int:
        """The port of HAProxy."""
        return self._topology.port

    def _start(self, name: str, port: str = "0", web_processes: int = 1) -> Machine:
        """Start a service with a store of its own; without an object store all have the same."""
        store = str(self._folder / (name if self._environ else "shared"))
        return self._topology.machine(self._environ, store=store, port=port, web_processes=str(web_processes))

    def under_load(self, what: str, event: Callable[[], None]) -> None:
        """Add the row of an event. One that does not come about ends the row, not the benchmark."""
        problem = ""
        with Load(self.port, PATH, SEVEN.content, SEVEN.media_type) as load:
            time.sleep(_AROUND_S)
            try:
                event()
            except (NeverCame, NotStarted, NoPostgres, OSError, psutil.Error) as err:
                problem = f": {err}"
            time.sleep(_AROUND_S)
        met = not load.failed and load.slowest_s <= _SLOWEST_S and not problem
        counts = [str(len(load.failed)), str(len(load.answers)), f"{load.slowest_s:.2f}"]
        self.rows.append([what, *counts, f"0, {_SLOWEST_S:g} s", f"yes{problem}" if met else f"no{problem}"])
        sys.stderr.write(f"cluster: {', '.join(self.rows[-1])}\n")

    def aims(self) -> list[Aim]:
        """Return the rows of promotions."""
        if not self.followed_s:
            return []
        return [
            Aim("promotion or rollback: followed everywhere, s", self.followed_s, _FOLLOWED_S),
            Aim("promotions and rollbacks answered before that", [self.early], 0),
        ]

    def _change(self, machine: Machine, path: str, *, counted: bool = True) -> None:
        """Promote the other version, or roll back to it."""
        version = 3 - self._version
        began = time.perf_counter()
        done = machine.post(f"/models/{MODEL}/{path}", **({"version": version} if path == "promote" else {}))
        self._version = version
        took_s = time.perf_counter() - began
        loaded = [other.loaded for other in self.machines]
        wait(lambda: all(other.loaded == version for other in self.machines), f"version {version} everywhere")
        if counted:
            self.early += not done["waiting_for"] and loaded != [version] * len(loaded)
            self.followed_s.append(time.perf_counter() - began if done["waiting_for"] else took_s)

    def promote(self, *, counted: bool = True) -> None:
        """Promote the other version, and wait until it is followed. Raises OSError if it is refused."""
        self._change(self.machines[0], "promote", counted=counted)

    def roll_back(self) -> None:
        """Roll back, by the second machine."""
        self._change(self.machines[1], "rollback")

    def restart_all(self) -> None:
        """Stop and start the services in turn, each at its port."""
        for i in range(len(self.machines)):
            self.machines[i].process.terminate()
            self.machines[i].process.wait()
            self.replace(i)

    def replace(self, i: int) -> None:
        """Start the service that has ended again, and wait until it answers predictions."""
        self.machines[i] = self._start("ab"[i], self.machines[i].address.rpartition(":")[2])
        self._answers(self.machines[i])

    def _answers(self, machine: Machine) -> None:
        wait(lambda: machine.answered, f"predictions at {machine.address}")

    def join(self) -> None:
        """Add a service, of two web processes."""
        self.machines.append(self._start("c", web_processes=2))
        self._answers(self.machines[-1])

    def _third(self) -> Machine:
        if len(self.machines) < 3:
            raise NeverCame("there is no third node")
        return self.machines[2]

    def leave(self) -> None:
        """Stop the one that joined."""
        gone = self._third()
        self.machines.remove(gone)
        gone.process.terminate()
        gone.process.wait()

    def kill_web_process(self) -> None:
        """Kill one of the two web processes of the one that joined; another one takes its place."""
        machine = self._third()
        web = _web_processes(machine)
        web[0].kill()
        wait(lambda: len(set(_web_processes(machine)) - set(web)) == 1, "another web process")

    def kill(self) -> None:
        """Kill all processes of the second service."""
        self.machines[1].signal(signal.SIGKILL)
        self._silent()

    def freeze(self, seconds: float) -> None:
        """Freeze the second service, and wake it."""
        self.machines[1].signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
            self._silent()
        finally:
            self.machines[1].signal(signal.SIGCONT)
        first, second = self.machines
        wait(lambda: first.known.get(second.address) == "serving", f"{second.address} serving")

    def _silent(self) -> None:
        first, second = self.machines
        wait(lambda: first.known.get(second.address) == "silent", f"{second.address} silent")


def _web_processes(machine: Machine) -> list[psutil.Process]:
    """Return the processes of a service that serve connections."""
    port = int(machine.address.rpartition(":")[2])
    found = []
    for process in psutil.Process(machine.process.pid).children(recursive=True):
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        if any(used.laddr.port == port and used.status == psutil.CONN_ESTABLISHED for used in connections):
            found.append(process)
    return found
