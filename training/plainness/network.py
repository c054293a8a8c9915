"""The network behind `models/handwriting/plainness.py`: fit it, and convert it to the numbers that serve."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.handwriting.plainness import FILTERS, HIDDEN, KERNELS, SIDES, STRIDES
from models.spec import Array

_BATCH, _RATE, _DECAY = 256, 4e-3, 0.02


def fit(plain: Array, others: Array, *, epochs: int, seed: int) -> nn.Sequential:
    """Fit the network to fields, uint8 (N, 28, 28) both: 0 for plain digits, 1 for others."""
    torch.manual_seed(seed)
    fields = torch.from_numpy(np.concatenate([plain, others]))[:, None]
    targets = torch.cat([torch.zeros(len(plain)), torch.ones(len(others))])
    network = untrained()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    batches = len(fields) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * batches)
    for _ in range(epochs):
        for chosen in torch.randperm(len(fields))[: batches * _BATCH].reshape(batches, _BATCH):
            logits = network(fields[chosen].float() / 255)[:, 0]
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(logits, targets[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network


def numbers_of(network: nn.Sequential) -> Mapping[str, Array]:
    """Return the network's parameters, float16, with the channels last, as `strangeness` multiplies them."""
    named: dict[str, Tensor] = dict(network.state_dict())
    values = {name: value.numpy() for name, value in named.items()}
    dense = 2 * len(FILTERS) + 1
    hidden = values[f"{dense}.weight"].reshape(HIDDEN, FILTERS[-1], SIDES[-1], SIDES[-1])
    numbers = {"hidden_offsets": values[f"{dense}.bias"]}
    numbers |= {"out": values[f"{dense + 2}.weight"][0], "out_offset": values[f"{dense + 2}.bias"][0]}
    numbers["hidden"] = hidden.transpose(2, 3, 1, 0).reshape(-1, HIDDEN)
    for layer, filters in enumerate(FILTERS):
        weight = values[f"{2 * layer}.weight"]  # (filters, channels, kernel, kernel)
        numbers[f"filters{layer}"] = weight.transpose(2, 3, 1, 0).reshape(-1, filters)
        numbers[f"offsets{layer}"] = values[f"{2 * layer}.bias"]
    return {name: np.asarray(value, np.float16) for name, value in numbers.items()}


def untrained() -> nn.Sequential:
    """Build the network with random parameters: float32 (N, 1, 28, 28) in 0..1 -> logits (N, 1)."""
    layers: list[nn.Module] = []
    for channels, filters, kernel, stride in zip((1, *FILTERS), FILTERS, KERNELS, STRIDES, strict=False):
        layers += [nn.Conv2d(channels, filters, kernel, stride=stride), nn.ReLU()]
    dense = nn.Linear(FILTERS[-1] * SIDES[-1] ** 2, HIDDEN)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU(), nn.Linear(HIDDEN, 1))
