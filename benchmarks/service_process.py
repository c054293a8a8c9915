"""Run `python -m service` as a subprocess, for benchmarks and tests."""

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "service")
_START_S = 60  # without a line of log


class NotStarted(Exception):
    """A server exited before it answered, or did not answer in time."""


@contextmanager
def running_service(
    settings: Mapping[str, str],
    *,
    cwd: Path = ROOT,
    command: Sequence[str | Path] = COMMAND,
    log: IO[str] | None = None,
    stop_s: float = 30,
    own_session: bool = False,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the service on a free port; yield its URL and process; stop it on exit.

    Unless set in `settings`, it runs no worker and uses a temporary store. This process's TORCHLOOP_* variables are not
    inherited. Every line of its log is copied to `log`. With `own_session`, Linux shares the processors out between
    it and the caller, whatever the niceness of its subprocesses. Raises NotStarted.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    with TemporaryDirectory() as folder:
        defaults = {"TORCHLOOP_PORT": "0", "TORCHLOOP_WORKER": "external", "TORCHLOOP_STORE": folder}
        environ = {**inherited, **defaults, **settings}
        process = subprocess.Popen(
            command, cwd=cwd, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=own_session
        )
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stderr, lines, log))
        reader.start()
        try:
            yield _url(lines), process
        finally:
            process.terminate()
            process.wait(timeout=stop_s)
            reader.join()


def _read(stderr: IO[str], lines: "queue.Queue[str]", log: IO[str] | None) -> None:
    with stderr:
        for line in stderr:
            lines.put(line)
            if log:
                log.write(line)
                log.flush()
    lines.put("")  # end of file


def _url(lines: "queue.Queue[str]") -> str:
    """Return the URL in the first log line that has one. Raises NotStarted."""
    seen = []
    try:
        while line := lines.get(timeout=_START_S):
            seen.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                return found[1]
    except queue.Empty:
        seen.append(f"(no line for {_START_S} s)\n")
    raise NotStarted("the service did not start:\n" + "".join(seen))
