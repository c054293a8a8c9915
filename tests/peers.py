"""Peers of a training attempt as further torch subprocesses of this machine."""

from collections.abc import Sequence
from dataclasses import replace

from models.groups import Group
from models.messages import Assist, Assisted, Failed, Fit, decode_order, encode_message
from service.execution.process import Child


class LocalPeers:
    """The other ranks of a group on loopback. `changed`: fields of their orders that differ from those of rank 0."""

    def __init__(self, size: int = 2) -> None:
        self.group = Group(address="127.0.0.1", size=size)
        self.children: list[Child] = []
        self.changed: dict[str, object] = {}
        self._over: set[int] = set()

    def start(self, fit: bytes) -> None:
        """See Peers."""
        order = decode_order(fit)
        assert isinstance(order, Fit)
        assert order.group is not None
        while len(self._over) < len(self.children):
            self.ended(1)
        self._over.clear()
        for rank in range(1, order.group.size):
            if len(self.children) < rank:
                self.children.append(Child())
            changed = replace(order, **self.changed)  # type: ignore[arg-type]
            self.children[rank - 1].send(Assist(fit=changed, group=order.group, rank=rank))

    def ended(self, timeout_s: float) -> Sequence[bytes | None]:
        """See Peers."""
        found: list[bytes | None] = []
        for rank, child in enumerate(self.children):
            results = [one for one in child.messages(timeout_s / 3) if isinstance(one, Assisted | Failed)]
            if rank not in self._over and (results or child.exit is not None):
                self._over.add(rank)
                found.append(encode_message(results[-1]) if results else b"")
        return found

    def stop(self) -> None:
        """End the subprocesses."""
        for child in self.children:
            child.stop()
