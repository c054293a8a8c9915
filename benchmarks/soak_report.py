"""Evaluate a soak test: failures, losses, memory, and the aims. No I/O; times are in s of one clock."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

_WINDOW_S = 2.0  # after a kill: connections that the dead process had not accepted may break
_SETTLING_S = 60.0  # warm-up of a process, during which its memory grows
_LEAST_S = 60.0  # shortest period to fit a slope to


class Asked(NamedTuple):
    """One request: its start, its end, and the pid of the process that had the connection (0: not known yet).

    `fault` is None for a correct response; `broken`: the connection ended without a complete response.
    """

    began: float
    ended: float
    pid: int
    fault: str | None = None
    broken: bool = False


class Kill(NamedTuple):
    """A SIGKILL."""

    at: float
    pid: int
    module: str


class Resident(NamedTuple):
    """Memory of a process, in MiB."""

    at: float
    pid: int
    mib: float


@dataclass
class Seen:
    """Recorded events of a run."""

    asked: list[Asked] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    resident: list[Resident] = field(default_factory=list)
    ended: int | None = None  # exit status of the service, if it ended by itself
    changes: int = 0  # acknowledged promotions and rollbacks
    versions: dict[tuple[str, int], str] = field(default_factory=dict)  # sha256 of each acknowledged version
    lost_versions: list[tuple[str, int]] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)  # last state of each acknowledged job; "lost" if it is not found


@dataclass(frozen=True)
class Failures:
    """Failed requests, by their connection."""

    own: list[Asked]  # on a connection of a killed process
    near: list[Asked]  # on a connection of no known process, within _WINDOW_S of a kill of a web process
    other: list[Asked]


def failures(asked: Sequence[Asked], kills: Sequence[Kill]) -> Failures:
    """Sort failed requests by cause. A kill can explain a broken connection, but never a wrong response."""
    webs = [kill for kill in kills if kill.module == "service.serve"]
    died = {kill.pid: kill.at for kill in webs}
    sorted_out = Failures([], [], [])
    for request in asked:
        if request.fault is None:
            continue
        if request.broken and request.pid in died and request.ended >= died[request.pid]:
            sorted_out.own.append(request)
        elif request.broken and not request.pid and any(_near(request, kill) for kill in webs):
            sorted_out.near.append(request)
        else:
            sorted_out.other.append(request)
    return sorted_out


def _near(request: Asked, kill: Kill) -> bool:
    return request.ended >= kill.at and request.began <= kill.at + _WINDOW_S


def slopes(resident: Sequence[Resident], killed: set[int]) -> dict[int, float]:
    """Fit a line to the memory of each process that was not killed and ran long enough. Returns MiB per hour by pid."""
    found = {}
    for pid in sorted({sample.pid for sample in resident} - killed):
        own = [sample for sample in resident if sample.pid == pid]
        late = [sample for sample in own if sample.at >= own[0].at + _SETTLING_S]
        if late and late[-1].at - late[0].at >= _LEAST_S:
            hours = [(sample.at - late[0].at) / 3600 for sample in late]
            found[pid] = float(np.polyfit(hours, [sample.mib for sample in late], 1)[0])
    return found


def missed(seen: Seen) -> list[str]:
    """Describe the aims that were missed."""
    other = failures(seen.asked, seen.kills).other
    unfinished = [job for job, state in seen.jobs.items() if state != "succeeded"]
    faults = {
        "no requests were sent": not seen.asked,
        f"the service exited with status {seen.ended}": seen.ended is not None,
        f"{len(other)} failures not explained by a kill: {dict(_counted(other))}": other,
        f"{len(unfinished)} jobs lost or unfinished: {[(job, seen.jobs[job]) for job in unfinished][:5]}": unfinished,
        f"{len(seen.lost_versions)} versions lost: {seen.lost_versions[:5]}": seen.lost_versions,
    }
    return [text for text, missing in faults.items() if missing]


def table(seen: Seen, seconds: float) -> str:
    """Return the report as text."""
    found = failures(seen.asked, seen.kills)
    modules = Counter(kill.module for kill in seen.kills)
    killed = {kill.pid for kill in seen.kills}
    growth = [f"{slope:+.1f} (process {pid})" for pid, slope in slopes(seen.resident, killed).items()]
    last = {sample.pid: f"{sample.mib:.0f}" for sample in seen.resident if sample.pid not in killed}
    done = Counter(seen.jobs.values())
    lines = [
        f"  {seconds / 60:.1f} minutes, {len(seen.asked)} requests, {len(seen.asked) / seconds:.0f} per second",
        f"  killed: {dict(modules)}",
        f"  without a response on connections of killed processes: {len(found.own)};"
        f" on connections not yet accepted, within {_WINDOW_S:g} s of a kill: {len(found.near)}",
        f"  other failures: {len(found.other)} {dict(_counted(found.other))} (aim 0)",
        f"  promotions and rollbacks: {seen.changes}",
        f"  jobs: {len(seen.jobs)} {dict(done)}; lost or unfinished: {len(seen.jobs) - done['succeeded']} (aim 0)",
        f"  versions: {len(seen.versions)}; lost: {len(seen.lost_versions)} (aim 0)",
        f"  memory of the web processes that were not killed, MiB at the end: {', '.join(last.values())};"
        f" MiB per hour: {', '.join(growth) or 'not known, the run was too short'}",
        *(f"  MISSED: {text}" for text in missed(seen)),
    ]
    return "\n".join(lines)


def _counted(found: Sequence[Asked]) -> list[tuple[str | None, int]]:
    return Counter(request.fault for request in found).most_common(5)
