"""Groups of torch subprocesses, one on each node of a job."""

from dataclasses import dataclass
from typing import Literal

PEER_LOST = 75  # exit status of a torch subprocess that lost its peers: the attempt is to be repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of `size` subprocesses that meet at `address` of the node of rank 0, on a port that rank 0 chooses.

    port  0: not chosen yet
    """

    address: str
    size: int
    port: int = 0


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Rank 0 waits for the others on this port."""

    port: int
    type: Literal["listening"] = "listening"
