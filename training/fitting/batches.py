"""Batches of one epoch: whole tensors taken by index, with no Python code per sample."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.recipe import Split

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, torch.Generator], Tensor]  # samples -> as many samples of the same form


def batches(
    split: Split,
    *,
    batch_size: int,
    shuffle: bool,
    generator: torch.Generator,
    augment: Augment | None = None,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The samples and targets of one epoch, batch by batch; the last may be smaller.

    `generator` is drawn from here and now, never while the batches are made: they are the same whoever prepares them,
    this process or `num_workers` others.
    """
    order = torch.randperm(len(split), generator=generator) if shuffle else torch.arange(len(split))
    parts = torch.split(order, batch_size)
    seeds = torch.randint(2**62, (len(parts),), generator=generator).tolist()
    epoch = _Epoch(split, parts, seeds, augment)
    if num_workers == 0:
        return map(epoch.__getitem__, range(len(epoch)))
    loader = DataLoader(epoch, batch_size=None, num_workers=num_workers, generator=torch.Generator())
    return iter(loader)


@dataclass(frozen=True)
class _Epoch(Dataset[Batch]):
    """The plan of one epoch: `parts` holds the indices of each batch, `seeds` what its augmentation is drawn from."""

    split: Split
    parts: Sequence[Tensor]
    seeds: Sequence[int]
    augment: Augment | None

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, position: int) -> Batch:
        part = self.parts[position].to(self.split.samples.device)
        samples = self.split.samples.index_select(0, part)
        if self.augment is not None:
            samples = self.augment(samples, torch.Generator().manual_seed(self.seeds[position]))
        return samples, self.split.targets.index_select(0, part)
