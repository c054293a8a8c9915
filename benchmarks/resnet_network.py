"""ResNet-18, https://arxiv.org/abs/1512.03385.

`python -m benchmarks.resnet_network FILE SEED` writes random weights.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a shortcut: (N, before, H, W) -> (N, after, H / stride, W / stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential()
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False),
                nn.BatchNorm2d(after),
            )

    def forward(self, samples: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(samples)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(samples))


class ResNet18(nn.Module):
    """Pictures (N, 3, 224, 224) -> logits (N, classes)."""

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        blocks: list[Block] = []
        for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
            blocks += [Block(before, after, after // before), Block(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, classes)

    def forward(self, samples: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(samples)))  # (N, 64, 112, 112)
        inner = torch.max_pool2d(inner, 3, 2, 1)  # (N, 64, 56, 56)
        pooled = self.blocks(inner).mean(dim=(2, 3))  # (N, 512)
        logits: Tensor = self.fc(pooled)
        return logits


def write_weights() -> None:
    """Write random weights."""
    torch.manual_seed(int(sys.argv[2]))
    torch.save(ResNet18().state_dict(), Path(sys.argv[1]))


if __name__ == "__main__":
    write_weights()
