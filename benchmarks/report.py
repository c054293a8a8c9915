"""Format tables as plain text, and the Markdown page with the machine and package versions."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks import load, servers

_PACKAGES = ("torch", "onnxruntime", "numpy", "pillow", "uvicorn", "uvloop", "httptools", "fastapi", "starlette")


@dataclass(frozen=True)
class Aim:
    """Measured values, and the greatest that is good enough, if there is an aim; with `at_least`, the smallest one."""

    what: str
    values: Sequence[float]
    aim: float = math.inf
    at_least: bool = False

    def cells(self) -> list[str]:
        """Return the cells of a row: what, least and greatest value, aim, yes or no."""
        least, greatest = min(self.values), max(self.values)
        met = least >= self.aim if self.at_least else greatest <= self.aim
        found = f"{least:.3g}" if least == greatest else f"{least:.3g} to {greatest:.3g}"
        if self.aim == math.inf:
            return [self.what, found]
        return [self.what, found, f"at {'least' if self.at_least else 'most'} {self.aim:g}", "yes" if met else "no"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as columns: the first left-aligned, the others right-aligned. Rows may be shorter than others."""
    widths = [
        max(len(row[i]) for row in [head, *rows] if i < len(row) - 1 or len(row) == len(head)) for i in range(len(head))
    ]
    return "\n".join(
        "  "
        + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(widths[i]) for i, cell in enumerate(row[1:], 1))]).rstrip()
        for row in [head, *rows]
    )


def markdown(command: str, known: Mapping[str, str], tables: Mapping[str, str]) -> str:
    """Return a Markdown page: command and machine, then each benchmark's tables."""
    lines = ["# Benchmarks", "", "Written by", "", "```console", command, "```", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in known.items()]
    for name, text in tables.items():
        lines += ["", f"## {name}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def facts() -> dict[str, str]:
    """Return date, machine and package versions."""
    memory = f"{psutil.virtual_memory().total / 2**30:.1f} GiB memory"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {_processor()}, {memory}",
        "system": f"{platform.system()}, {platform.machine()}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        **{name: f"{pins[0].partition('==')[2]}, in its own environment" for name, pins in servers.PEERS.items()},
        "wrk": load.version() or "not installed",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
