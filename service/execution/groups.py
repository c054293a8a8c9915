"""The web processes on the nodes of a cluster: one group on each node that offers CPUs."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from service.execution.pauses import Pauses

log = logging.getLogger(__name__)
_PREFIX = "web/"
_STEADY_S = 60.0  # a group that ran for so long is placed again at once


class Share(NamedTuple):
    """CPUs and GPUs: of a node, or set aside on it for a group."""

    cpus: float
    gpus: float


class Sites(Protocol):
    """The nodes of a cluster, which keep the processes that are placed on them. Repeats nothing."""

    def placed(self) -> Collection[str]:
        """Return the names of what runs or waits for resources."""

    def nodes(self) -> Mapping[str, Share]:
        """Return the live nodes by their ids, with all that they offer."""

    def place_group(self, name: str, node: str, share: Share) -> bool:
        """Have a group of web processes run on a node, as soon as the node has its share. False if it is there."""


def name_of(node: str) -> str:
    """Return the name of the group of a node in the cluster. No attempt has such a name."""
    return f"{_PREFIX}{node}"


class Groups:
    """Compares the nodes with the placed groups, at each `look`.

    Keeps nothing that another dispatcher could not read from the cluster: several may run, a name is placed once.
    """

    def __init__(self, sites: Sites, share: Share, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`share` is set aside for each group; of GPUs as many as the node offers, if that is less."""
        self._sites = sites
        self._share = share
        self._monotonic = monotonic
        self._pauses = Pauses()
        self._small: set[str] = set()  # nodes with too few CPUs

    def look(self) -> None:
        """Place a group on each node that has none: a new node, or one whose group has ended. Call it twice a second.

        A group that ends again and again is placed ever more rarely, once a minute in the end.
        """
        at, placed = self._monotonic(), self._sites.placed()
        nodes = {node: has for node, has in self._sites.nodes().items() if has.cpus > 0}
        self._pauses.keep(nodes)
        small = {node for node, has in nodes.items() if has.cpus < self._share.cpus}
        for node in sorted(small - self._small):
            fields = {"node": node, "cpus": nodes[node].cpus, "asked": self._share.cpus}
            log.warning("node has too few CPUs for web processes and gets none", extra=fields)
        self._small = small
        for node, has in nodes.items():
            if name_of(node) in placed:
                self._pauses.forget_after(node, at, _STEADY_S)
            elif node not in small and self._pauses.over(node, at):
                self._place(node, has, at)

    def _place(self, node: str, has: Share, at: float) -> None:
        share = Share(self._share.cpus, min(self._share.gpus, has.gpus))
        if self._pauses.tried(node, at):
            log.warning("web processes ended, they are placed again", extra={"node": node})
        if self._sites.place_group(name_of(node), node, share):
            log.info("web processes placed", extra={"node": node, "cpus": share.cpus, "gpus": share.gpus})
