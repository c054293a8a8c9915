"""Batches of one epoch, indexed from whole tensors without Python code per sample."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.fitting.group import Group
from training.recipe import Split

Batch = tuple[Any, Tensor]  # samples, of a tensor or Coded, and targets
Augment = Callable[[Tensor, torch.Generator], Tensor]  # samples -> samples of the same shape


def batches(
    split: Split,
    *,
    batch_size: int,
    shuffle: bool,
    generator: torch.Generator,
    augment: Augment | None = None,
    num_workers: int = 0,
    group: Group | None = None,
) -> Iterator[Batch]:
    """Iterate over the samples and targets of one epoch in batches; the last may be smaller.

    All random numbers are drawn from `generator` before the first batch, so that the batches are the same for every
    `num_workers`. With a group, the batches have `batch_size` samples for each process, and this process gets its part
    of each, which may be empty.
    """
    size, rank = (1, 0) if group is None else (group.size, group.rank)
    order = torch.randperm(len(split), generator=generator) if shuffle else torch.arange(len(split))
    parts = torch.split(order, batch_size * size)
    seeds = (torch.randint(2**62, (len(parts),), generator=generator) + rank).tolist()
    if group is not None:
        parts = tuple(map(group.part, parts))
    epoch = _Epoch(split, parts, seeds, augment)
    if num_workers == 0:
        return map(epoch.__getitem__, range(len(epoch)))
    loader = DataLoader(epoch, batch_size=None, num_workers=num_workers, generator=torch.Generator())
    return iter(loader)


@dataclass(frozen=True)
class _Epoch(Dataset[Batch]):
    """The plan of one epoch: `parts` are the indices of each batch, `seeds` the seeds of its augmentation."""

    split: Split
    parts: Sequence[Tensor]
    seeds: Sequence[int]
    augment: Augment | None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, position: int) -> Batch:
        part = self.parts[position].to(self.split.samples.device)
        samples = self.split.samples.index_select(0, part)
        if self.augment is not None and len(part):
            samples = self.augment(samples, torch.Generator().manual_seed(self.seeds[position]))
        return samples, self.split.targets.index_select(0, part)
