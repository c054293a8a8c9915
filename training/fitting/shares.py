"""Gradients of a batch by several threads: each computes a part of it, and they meet once a step.

The threads inside an operation meet at each of a hundred operations a step. For a small network that takes longer than
it saves, and much longer if other processes need the cores.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Error = Callable[[Any, Tensor], Tensor]  # samples, targets -> mean loss
_LEAST = 25  # samples of a part: with fewer, the work for each operation outweighs that for the samples


def shares_of(batch_size: int, device: torch.device) -> int:
    """Return how many parts a batch is divided into on a device: at most one for each of PyTorch's threads."""
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // _LEAST))


@contextmanager
def sharing(count: int) -> Iterator["Shares | None"]:
    """Start the threads for `count` parts, of which this is one; each operation takes one thread then.

    None stands for one part.
    """
    if count == 1:
        yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count - 1, "share", torch.set_num_threads, (1,)) as pool:
            yield Shares(count, pool)
    finally:
        torch.set_num_threads(threads)


class Shares:
    """The threads. The sums are the same in each run with the same number of parts."""

    def __init__(self, count: int, pool: ThreadPoolExecutor) -> None:
        self._count = count
        self._pool = pool

    def backward(self, network: nn.Module, error: Error, samples: Any, targets: Tensor) -> float:
        """Set the gradients of the mean loss of a batch. Returns that loss."""
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        places = torch.arange(len(targets)).tensor_split(self._count)
        parts = [(samples[int(rows[0]) : int(rows[-1]) + 1], targets[rows]) for rows in places if len(rows)]
        others = [self._pool.submit(_gradients, weights, error, part, len(targets)) for part in parts[1:]]
        loss, gradients = _gradients(weights, error, parts[0], len(targets))
        for more, found in (other.result() for other in others):
            loss += more
            gradients = [_sum(one, two) for one, two in zip(gradients, found, strict=True)]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        return loss


def _gradients(
    weights: Sequence[Tensor], error: Error, part: tuple[Any, Tensor], total: int
) -> tuple[float, list[Tensor | None]]:
    """Return the contribution of a part to the mean loss of a batch of `total` samples, and to its gradients."""
    share = error(*part) * (len(part[1]) / total)
    return share.item(), list(torch.autograd.grad(share, weights, allow_unused=True))


def _sum(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    if one is None or two is None:
        return two if one is None else one
    return one.add_(two)
