"""Several machines as processes on loopback: services on one database, behind HAProxy, fed by `torchloop haproxy`."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.balancer import environment, listening_socket, running_haproxy
from benchmarks.service_process import ROOT, running_service
from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.store.database import Store

_PATIENCE_S = 120.0
_POLL_S = 0.02


class NeverCame(Exception):
    """Something that was waited for did not come about."""


def wait(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition is true; a connection that fails counts as false. Raises NeverCame."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            if condition():
                return
        time.sleep(_POLL_S)
    raise NeverCame(f"{what}: not within {_PATIENCE_S:g} s")


class Machine:
    """One service, and calls of it."""

    def __init__(self, url: str, process: "subprocess.Popen[str]", model: str) -> None:
        self.url = url
        self.address = urlsplit(url).netloc
        self.process = process
        self._model = model

    def get(self, path: str) -> str:
        """Return the answer to a GET. Raises OSError."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:  # noqa: S310 - a URL of ours
            return str(answer.read().decode())

    def post(self, path: str, **body: Any) -> Any:
        """Return the answer to a POST. Raises OSError."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)  # noqa: S310 - as above
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    @property
    def loaded(self) -> int:
        """The version that it answers with."""
        return int(json.loads(self.get(f"/models/{self._model}"))["loaded"])

    @property
    def answered(self) -> bool:
        """Whether it has answered a prediction."""
        return f'torchloop_requests_total{{model="{self._model}",status="200"}}' in self.get("/metrics")

    @property
    def known(self) -> dict[str, str]:
        """The nodes that it knows, and their states."""
        return {node["address"]: node["state"] for node in json.loads(self.get("/nodes"))["nodes"]}

    def signal(self, number: int) -> None:
        """Send a signal to all its processes, as the failure of a machine would strike all."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            for process in (parent, *parent.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


class Topology:
    """Services on one database, behind HAProxy at `port`. They have the `settings`, whose names lack the prefix."""

    def __init__(self, stack: ExitStack, settings: Mapping[str, str], model: str) -> None:
        self._stack = stack
        self.settings = dict(settings)
        self.model = model
        self.port = 0

    def machine(self, environ: Mapping[str, str] | None = None, **settings: str) -> Machine:
        """Start a service with further settings, and with other variables."""
        given = {f"TORCHLOOP_{name.upper()}": value for name, value in {**self.settings, **settings}.items()}
        entered = self._stack.enter_context(running_service({**given, **(environ or {})}, own_session=True))
        machine = Machine(*entered, self.model)
        self._stack.callback(machine.signal, signal.SIGCONT)
        return machine

    def balance(self, folder: Path) -> None:
        """Start HAProxy with the nodes that serve, and a feeder of it. Raises NoHAProxy."""
        config, runtime = folder / "haproxy.cfg", folder / "admin.sock"
        descriptor, self.port = self._stack.enter_context(listening_socket())
        with self._haproxy("--output", config, "--bind", f"fd@{descriptor}", "--stats-socket", runtime) as written:
            if written.wait():
                raise NeverCame("torchloop haproxy wrote no configuration")
        self._stack.enter_context(running_haproxy(config, descriptor, runtime))
        feeder = self._stack.enter_context(self._haproxy("--socket", runtime, "--watch"))
        self._stack.callback(feeder.kill)

    def _haproxy(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Start `torchloop haproxy`."""
        command = [sys.executable, "-m", "service.command", "haproxy", *map(str, words)]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(**self.settings), stdout=subprocess.DEVNULL, text=True
        )


def register_again(store: Store, model: str) -> None:
    """Make version 2 of a model, the same file as version 1."""
    registry = Registry(store)
    first = registry.version(model, 1)
    with store.write() as connection:
        registry.add(connection, model, registry.path(first), Record(**first.record), job=None, now=time.time())
