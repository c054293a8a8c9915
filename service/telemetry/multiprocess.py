"""Metrics of several web processes, combined: each writes its counts into a folder that all of them read.

The library's own way keeps every number in a shared file, which makes counting three times as slow. Here a process
counts in memory and writes twice a second; what another process reads is at most that old.
"""

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import orjson
from prometheus_client import Metric
from prometheus_client.samples import Sample

log = logging.getLogger(__name__)
Joined = Literal["sum", "highest", "each"]
_PARTS = ("name", "documentation", "type")


class Combined:
    """Combine this process's families with those that the others wrote. Without a folder there are no others.

    Counters and histograms are summed, processes that have ended included; of their creation times the earliest is
    kept. `gauges` says how a gauge of the running processes is combined: "each" keeps one value for each process, with
    a label `pid`.
    """

    def __init__(self, folder: Path | None, gauges: dict[str, Joined]) -> None:
        self._folder = folder
        self._gauges = gauges
        self._publishing = threading.Lock()
        self._stale = False

    def publish(self, families: Iterable[Metric]) -> None:
        """Write the counts of this process, for the others to read. Thread-safe: the last writer also counted last if
        `families` are collected lazily.
        """
        if self._folder is None:
            return
        with self._publishing:
            told = [
                [*(getattr(family, part) for part in _PARTS), [(s.name, s.labels, s.value) for s in family.samples]]
                for family in families
            ]
            hidden = self._folder / f".{os.getpid()}"
            try:
                hidden.write_bytes(orjson.dumps(told))
                hidden.replace(self._folder / f"{os.getpid()}.json")
            except OSError as err:
                if not self._stale:
                    log.warning("metrics not shared: /metrics is out of date", extra={"reason": err.strerror})
                self._stale = True
            else:
                self._stale = False

    def families(self, own: Iterable[Metric]) -> list[Metric]:
        """Return the counts of all processes."""
        if self._folder is None:
            return list(own)
        self.publish(own)
        joined: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        heads: dict[str, Metric] = {}
        for path in sorted(self._folder.glob("*.json")):
            for name, documentation, kind, samples in orjson.loads(path.read_bytes()):
                heads.setdefault(name, Metric(name, documentation, kind))
                mine = joined.setdefault(name, {})
                for sample, labels, value in samples:
                    self._join(mine, name, sample, labels, value, int(path.stem))
        for name, numbers in joined.items():
            heads[name].samples = [Sample(sample, dict(labels), value) for (sample, labels), value in numbers.items()]
        return list(heads.values())

    def _join(
        self,
        numbers: dict[tuple[str, tuple[tuple[str, str], ...]], float],
        family: str,
        sample: str,
        labels: dict[str, str],
        value: float,
        pid: int,
    ) -> None:
        how = self._gauges.get(family)
        if how is not None and not is_running(pid):
            return
        if how == "each":
            labels = {**labels, "pid": str(pid)}
        key = (sample, tuple(labels.items()))
        if key not in numbers:
            numbers[key] = value
        elif sample.endswith("_created"):  # when a process began to count
            numbers[key] = min(numbers[key], value)
        else:
            numbers[key] = max(numbers[key], value) if how == "highest" else numbers[key] + value


def is_running(pid: int) -> bool:
    """Return whether a process of this machine runs, stopped ones included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
