"""An attempt at a job, placed on a node of a cluster."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.execution.groups import Share
from service.execution.peers import Peers
from service.execution.stop import Stopping

_CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Attempt `number` at a job, with `cpus` and `gpus` on each of its nodes.

    `beats` is the count of heartbeats by which a running job was found silent.
    """

    job: str
    number: int
    beats: int
    cpus: float
    gpus: float
    lease_s: float
    nodes: int = 1

    @property
    def name(self) -> str:
        """Return the name in the cluster: each attempt is placed once."""
        return name_of(self.job, self.number)


Run = Callable[[Attempt, str, Stopping, Peers | None], None]  # makes an attempt on the node with that id
# Takes part in an encoded Fit as that rank, with or without a GPU. Returns the last message of the torch subprocess,
# encoded; empty if there is none.
Assist = Callable[[bytes, int, bool], bytes]


def name_of(job: str, number: int) -> str:
    """Return the name of an attempt in the cluster."""
    return f"{job}-{number}"


def job_and_number(name: str) -> tuple[str, int] | None:
    """Parse the name of an attempt; None for any other name."""
    job, _, number = name.rpartition("-")
    return (job, int(number)) if job and number.isdecimal() else None


def worker_of(node: str, name: str) -> str:
    """Return the name by which the row of a job knows the worker that makes an attempt on a node."""
    return f"{_CLUSTER}/{node}/{name}"


def node_of(worker: str | None) -> str | None:
    """Return the id of the node of a worker in a cluster; None for any other worker."""
    parts = (worker or "").split("/")
    return parts[1] if len(parts) == 3 and parts[0] == _CLUSTER else None


class Unplaceable(Exception):
    """Error: the cluster refuses an attempt, for instance its resources. The message names the reason."""


class Cluster(Protocol):
    """Places attempts on nodes with free resources, and keeps them there without this process. Repeats none."""

    def placed(self) -> Collection[str]:
        """Return the names of the attempts that run or wait for resources."""

    def nodes(self) -> Mapping[str, Share]:
        """Return the live nodes by their ids, with all that they offer."""

    def place(self, attempt: Attempt, avoid: Collection[str]) -> bool:
        """Have an attempt made as soon as its nodes have the resources, on one of `avoid` (ids) only if no others do.

        Returns False if it is placed already. Raises Unplaceable.
        """

    def remove(self, name: str) -> None:
        """End an attempt by force, if it is there."""
