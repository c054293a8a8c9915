"""Leases without clocks: a job is free once its heartbeat counter has stood still for the length of its lease.

Each worker measures that silence itself, by its monotonic clock. It compares no time with one that another machine
wrote, so a clock that is wrong, or set back after a crash, changes nothing. Kubernetes' leader election works the same
way.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

LOST_S = 2.0  # instead of the lease, if the cluster has lost the process of an attempt
_LOOK_S = 1.0  # the most that one look adds to a silence: heartbeats missed during an outage do not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The lease on a running job, and the number of heartbeats of its worker."""

    job: str
    attempt: int
    beats: int
    lease_s: float
    worker: str | None = None


def none_lost(_: Lease) -> bool:
    """Return False: nothing is known of any worker but its heartbeats."""
    return False


class Leases:
    """The leases that one worker has seen, and for how long each has had no heartbeat."""

    def __init__(self) -> None:
        self._silent_s: dict[Lease, float] = {}
        self._looked_at: float | None = None

    def expired(
        self, leases: Iterable[Lease], monotonic_s: float, lost: Callable[[Lease], bool] = none_lost
    ) -> list[str]:
        """Return the jobs whose lease has expired. `leases` are all current ones; call it at least once a second.

        A lease that is `lost` expires sooner: by all that is known, its worker has ended. A look after a longer pause
        counts as one second, because the worker or the database may have stood still.
        """
        passed = 0.0 if self._looked_at is None else min(max(0.0, monotonic_s - self._looked_at), _LOOK_S)
        self._looked_at = monotonic_s
        known = self._silent_s
        self._silent_s = {lease: known[lease] + passed if lease in known else 0.0 for lease in leases}
        return [
            lease.job
            for lease, silent_s in self._silent_s.items()
            if silent_s > lease.lease_s or (silent_s > LOST_S and lost(lease))
        ]
