"""Torch subprocesses on several nodes that train one network, as the worker of their rank 0 sees them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any, Protocol

from models.groups import PEER_LOST, Group, Listening
from models.messages import Failed, Fit, Fitted, Message, Order, decode_message, encode_order
from service.execution.process import Child, Printed

_LAST_WORDS_S = 3.0  # of one side, after the other has noticed that the group is broken


class Peers(Protocol):
    """The other nodes of an attempt."""

    @property
    def group(self) -> Group:
        """Return the group, with the address of this node and no port."""

    def start(self, fit: bytes) -> None:
        """Have each take part in an encoded Fit, whose group has the port."""

    def ended(self, timeout_s: float) -> Sequence[bytes | None]:
        """Return the encoded last messages of those that have ended since the last call: empty if there was none; None
        for one that is lost with its node.

        Waits so long for the first of those that are at work.
        """


class GroupChild(Child):
    """The torch subprocess of rank 0, whose fits the peers take part in."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._peers = peers
        self._fit: Fit | None = None  # at work
        self._broken_at = inf

    def send(self, order: Order[Any]) -> None:
        """See Child."""
        if isinstance(order, Fit):
            order = self._fit = replace(order, group=self._peers.group)
        super().send(order)

    def messages(self, timeout_s: float) -> Sequence[Message | Printed]:
        """See Child. The failure of a peer is that of the fit; without a peer, the subprocess ends."""
        taken: list[Message | Printed] = []
        for message in super().messages(timeout_s):
            if isinstance(message, Listening) and self._fit is not None:
                port = replace(self._peers.group, port=message.port)
                self._peers.start(encode_order(replace(self._fit, group=port)))
            else:
                taken.append(message)
                if isinstance(message, Fitted | Failed):
                    self._fit = None
        if self._fit is not None:
            taken.extend(self._of_peers())
        return taken

    def _of_peers(self) -> list[Failed]:
        """Return the failure of a peer, if there is one."""
        wait_s = _LAST_WORDS_S if self.exit == PEER_LOST else 0.0
        ended = self._peers.ended(wait_s)
        failed = [message for message in map(decode_message, filter(None, ended)) if isinstance(message, Failed)]
        if b"" in ended:
            self._broken_at = min(self._broken_at, time.monotonic())
        lost = None in ended or time.monotonic() - self._broken_at > _LAST_WORDS_S
        if lost and not failed and self.exit is None:
            self.stop()  # it waits for a frozen node
            self.exit = PEER_LOST
        return failed[:1]
