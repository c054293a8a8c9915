"""The metrics of several web processes as one: each writes what it has counted into a folder that all of them read.

The library's own way keeps every number in a shared file, which makes counting three times as slow. Here a process
counts in memory and writes twice a second; what another one tells of it is that old at most.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import orjson
from prometheus_client import Metric
from prometheus_client.samples import Sample

Joined = Literal["sum", "highest", "each"]
_PARTS = ("name", "documentation", "type")


class Combined:
    """This process's families beside those that the others wrote; alone where there is no folder.

    Counters and histograms are summed, also over processes that are gone; of a gauge, `gauges` says how the processes
    that live are joined: "each" keeps them apart by a label `pid`.
    """

    def __init__(self, folder: Path | None, gauges: dict[str, Joined]) -> None:
        self._folder = folder
        self._gauges = gauges
        self._publishing = threading.Lock()

    def publish(self, families: Iterable[Metric]) -> None:
        """Write what this process has counted, for the others to read. Any thread may: who writes last, counted last,
        if `families` are collected while they are gone through.
        """
        if self._folder is None:
            return
        with self._publishing:
            told = [
                [*(getattr(family, part) for part in _PARTS), [(s.name, s.labels, s.value) for s in family.samples]]
                for family in families
            ]
            hidden = self._folder / f".{os.getpid()}"
            hidden.write_bytes(orjson.dumps(told))
            hidden.replace(self._folder / f"{os.getpid()}.json")

    def families(self, own: Iterable[Metric]) -> list[Metric]:
        """What all processes have counted."""
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
        if how is not None and not _lives(pid):
            return
        if how == "each":
            labels = {**labels, "pid": str(pid)}
        key = (sample, tuple(labels.items()))
        before = numbers.get(key, 0.0)
        numbers[key] = max(before, value) if how == "highest" else before + value


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
