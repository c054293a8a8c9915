"""Processes on several nodes that fit one network together: each computes the gradients of a part of every batch.

Plain torch.distributed: NCCL for GPUs, Gloo otherwise. Only tensors pass between the processes, and states of a run,
which are read without running code (`weights_only`). Rank 0 decides, reports and writes.
"""

import fcntl
import hashlib
import io
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.fitting.resume import State
from training.recipe import TrainingError

_JOIN_S = 120.0  # until all processes are there: they start, and import PyTorch
_STEP_S = 900.0  # the longest wait for another process; the cluster notices a frozen node sooner
_SIOCGIFADDR = 0x8915
_NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
T = TypeVar("T")


class PeerLost(Exception):
    """Another process of the group has ended, or does not answer. The run can be resumed by a new group."""


@dataclass(slots=True, eq=False)
class Group:
    """The processes, as one of them sees them. `used` is set once a fit has shared its batches."""

    rank: int
    size: int
    device: torch.device
    used: bool = field(default=False, init=False)

    def part(self, batch: Tensor) -> Tensor:
        """Return the samples of a batch that this process takes: equal parts, or all to rank 0 if they are too few.

        A part of one sample would be too small for batch normalisation.
        """
        if len(batch) < 2 * self.size:
            return batch if self.rank == 0 else batch[:0]
        return torch.tensor_split(batch, self.size)[self.rank]

    def average(self, network: nn.Module, loss: float, samples: int) -> float:
        """Replace the gradients by their mean over the samples of all processes. Returns the mean of the losses.

        `loss` and the gradients are means over `samples`, those of this process; with none, they do not count. A weight
        without a gradient in each process keeps none. Raises PeerLost.
        """
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        grads = [weight.grad for weight in weights]
        counts = torch.tensor([samples, loss * samples if samples else 0.0, *(grad is not None for grad in grads)])
        flat = torch.cat(
            [
                counts.to(self.device),
                *(
                    torch.zeros(weight.numel(), device=self.device)
                    if grad is None or not samples
                    else grad.detach().reshape(-1).float() * samples
                    for weight, grad in zip(weights, grads, strict=True)
                ),
            ]
        )
        _call(lambda: dist.all_reduce(flat))
        total, losses, *found = flat[: len(counts)].tolist()
        means = torch.split(flat[len(counts) :] / total, [weight.numel() for weight in weights])
        for weight, mean, count in zip(weights, means, found, strict=True):
            if count:
                weight.grad = mean.view_as(weight).to(weight.dtype)
        return float(losses / total)

    def agreed(self, decide: Callable[[], float]) -> float:
        """Return what rank 0 decides. Raises PeerLost."""
        number = torch.tensor([decide() if self.rank == 0 else 0.0], dtype=torch.float64, device=self.device)
        _call(lambda: dist.broadcast(number, 0))
        return float(number.item())

    def shared(self, state: State | None) -> State | None:
        """Return the state that rank 0 has; the others give none. Raises PeerLost."""
        content = b""
        if self.rank == 0 and state is not None:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            content = buffer.getvalue()
        length = int(self.agreed(lambda: len(content)))
        if not length:
            return None
        sent = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(length).byte()
        sent = sent.to(self.device)
        _call(lambda: dist.broadcast(sent, 0))
        if self.rank == 0:
            return state
        received: State = torch.load(io.BytesIO(sent.cpu().numpy().tobytes()), weights_only=True)
        return received

    def copy(self, network: nn.Module) -> None:
        """Give the network the weights and buffers that it has at rank 0. Raises PeerLost."""
        for tensor in network.state_dict().values():
            sent = tensor.detach().to(self.device, copy=True).contiguous()
            _call(lambda sent=sent: dist.broadcast(sent, 0))  # type: ignore[misc]
            if self.rank:
                with torch.no_grad():
                    tensor.copy_(sent)

    def require_same(self, description: Mapping[str, Any]) -> None:
        """Raise TrainingError, in each process, if the processes do not have the same. Raises PeerLost."""
        for name, value in description.items():
            digest = hashlib.sha256(repr(value).encode()).digest()
            own = torch.tensor(list(digest), dtype=torch.int64, device=self.device)
            least, most = own.clone(), own.clone()
            _call(lambda least=least: dist.all_reduce(least, dist.ReduceOp.MIN))  # type: ignore[misc]
            _call(lambda most=most: dist.all_reduce(most, dist.ReduceOp.MAX))  # type: ignore[misc]
            if not torch.equal(least, most):
                raise TrainingError(
                    f"the nodes of this job do not have the same {name}: give them the same data and code, and let the "
                    "recipe make the same of them in each process"
                )


@runtime_checkable
class Grouped(Protocol):
    """A Report of a run that may have several processes."""

    @property
    def group(self) -> Group | None:
        """Return the processes; None: there is one."""


def group_of(report: object) -> Group | None:
    """Return the group of the report that a recipe's fit passes on; None: there is one process."""
    return report.group if isinstance(report, Grouped) else None


@contextmanager
def hosted(address: str, size: int, device: str, listening: Callable[[int], None]) -> Iterator[Group]:
    """Wait for the others of a group of `size`, as its rank 0. Raises PeerLost.

    `listening` is called with the port, a free one of `address`.
    """
    with socket.create_server((address, 0), family=_family(address)) as server:
        port = server.getsockname()[1]
        fd = os.dup(server.fileno())
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, size, is_master=True, timeout=timedelta(seconds=_JOIN_S), wait_for_workers=False,
        master_listen_fd=fd,
    )  # fmt: skip
    listening(port)
    with _joined(store, address, 0, size, device) as group:
        yield group


@contextmanager
def joined(address: str, port: int, rank: int, size: int, device: str) -> Iterator[Group]:
    """Join a group as one of its other ranks. Raises PeerLost."""
    timeout = timedelta(seconds=_JOIN_S)
    store = _call(
        lambda: dist.TCPStore(  # type: ignore[attr-defined]
            address, port, size, timeout=timeout, wait_for_workers=False
        )
    )
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        own = str(probe.getsockname()[0])
    with _joined(store, own, rank, size, device) as group:
        yield group


@contextmanager
def _joined(store: Any, own: str, rank: int, size: int, device: str) -> Iterator[Group]:
    """`own`: the address of this machine by which the others reach it."""
    place = torch.device(device)
    backend = "nccl" if place.type == "cuda" and dist.is_nccl_available() else "gloo"
    if interface := _interface(own):
        for name in _NAMES:
            os.environ.setdefault(name, interface)
    _call(
        lambda: dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=_STEP_S)
        )
    )
    try:
        yield Group(rank, size, place)
    finally:
        dist.destroy_process_group()


def _call(action: Callable[[], T]) -> T:
    """Communicate. Raises PeerLost."""
    try:
        return action()
    except RuntimeError as err:  # of all kinds: connection closed, timeout
        raise PeerLost(str(err).splitlines()[0]) from err


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _interface(address: str) -> str | None:
    """Return the name of the network card with an IPv4 address. Without it, Gloo takes that of the host's name."""
    if sys.platform != "linux" or ":" in address:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name[:15].encode()))
            except OSError:  # a card without an address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
