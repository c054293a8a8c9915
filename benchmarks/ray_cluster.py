"""A Ray cluster on loopback for benchmarks and tests of `torchloop cluster`, and dispatchers for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]

INSTALLED = find_spec("ray") is not None
# Ray's own health checks as docs/several-machines.md has them.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class RayNodes:
    """A running cluster: see ray_nodes.py for what it obeys."""

    def __init__(self, process: "subprocess.Popen[str]", environ: dict[str, str]) -> None:
        self._process = process
        self.environ = environ
        self._state: dict[str, Any] = self._answer()

    @property
    def address(self) -> str:
        """The address of the head."""
        return str(self._state["address"])

    @property
    def nodes(self) -> Mapping[str, int]:
        """Id of a node -> pid of its raylet."""
        return dict(self._state["nodes"])

    def do(self, words: str) -> None:
        """Give an order, and wait until it has been obeyed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        self._state = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def ray_nodes(count: int, settings: Mapping[str, str]) -> Iterator[RayNodes]:
    """Start a cluster of so many nodes with a CPU and a pretended GPU each. `settings` are those of its attempts.

    Variables of Ray may be among them.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHLOOP_", "RAY_"))}
    environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # otherwise the loopback address is replaced by that of a network
        **_HEALTH,
        **settings,
    }
    command = [sys.executable, "-m", "benchmarks.ray_nodes", str(count)]
    with (
        TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, "RAY_TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        yield RayNodes(process, environ)


@contextmanager
def dispatcher(nodes: RayNodes, *options: str, log: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Start `torchloop cluster`; its log is appended to a file."""
    command = [sys.executable, "-m", "service.cluster", "--address", nodes.address, *options]
    with (log or Path(os.devnull)).open("ab") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=nodes.environ, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)
