"""Load generator: run wrk, with every response checked. wrk is written in C and leaves the cores to the servers."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

MISSING = "  skipped: install wrk (apt-get install wrk, brew install wrk)"
_SCRIPT = Path(__file__).with_name("wrk.lua")


class LoadError(Exception):
    """wrk failed, or responses to a batch were wrong."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A request body, and the labels that every response must have, in order."""

    content: bytes
    media_type: str
    labels: tuple[int, ...]
    accept: str = "*/*"


@dataclass(frozen=True, kw_only=True)
class Load:
    """Result of one wrk run. `bad`: requests that failed or got a wrong response."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    bad: int

    @property
    def rate(self) -> float:
        """Correct responses per second."""
        return max(0, self.requests - self.bad) / self.seconds


def is_installed() -> bool:
    """Return whether wrk is on the PATH."""
    return shutil.which("wrk") is not None


def version() -> str | None:
    """Return wrk's version from `wrk --version`, which exits with status 1; None if it is not installed."""
    if not is_installed():
        return None
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)  # noqa: S607 - the PATH's
    found = re.search(r"wrk (?:debian/)?([\w.+-]+)", done.stdout + done.stderr)
    return found[1] if found else "unknown version"


def send(url: str, body: Body, paths: tuple[str, ...], *, connections: int, seconds: int) -> Load:
    """POST `body` to the paths in turn, for `seconds`, over `connections` connections. Raises LoadError."""
    with NamedTemporaryFile() as file:
        file.write(body.content)
        file.flush()
        labels = ",".join(map(str, body.labels))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "15s", "-s", str(_SCRIPT), url, "--"]
        arguments = [file.name, body.media_type, body.accept, labels, *paths]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"wrk exited with status {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Parse the last line of wrk's output, which wrk.lua wrote. Raises LoadError if it is missing."""
    lines = output.strip().splitlines()
    try:
        counts = json.loads(lines[-1])
        return Load(
            requests=counts["requests"],
            seconds=counts["duration_us"] / 1e6,
            p50_ms=counts["p50_us"] / 1e3,
            p99_ms=counts["p99_us"] / 1e3,
            bad=counts["wrong"] + counts["socket"] + counts["timeout"],  # `wrong` includes statuses other than 200
        )
    except (IndexError, ValueError, TypeError, KeyError) as err:
        raise LoadError(f"wrk.lua wrote no result: {output[-200:]}") from err
