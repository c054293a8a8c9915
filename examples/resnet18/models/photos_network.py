"""The network of `photos`. Its state_dict has the names of torchvision's resnet18, whose weights can be uploaded."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions with a shortcut: (N, before, height, width) -> (N, after, height / stride, width / stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential()
        if before != after:
            self.downsample.append(nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(after))

    def forward(self, samples: Tensor) -> Tensor:
        """Add the shortcut before the last activation."""
        inner = self.bn1(self.conv1(samples)).relu()
        outputs: Tensor = (self.bn2(self.conv2(inner)) + self.downsample(samples)).relu()
        return outputs


class ResNet18(nn.Module):
    """He et al. 2015: uint8 (N, height, width, 3) -> logits (N, classes)."""

    mean: Tensor
    spread: Tensor

    def __init__(self, *, classes: int = 1_000) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]), persistent=False)  # of ImageNet
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225]), persistent=False)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, samples: Tensor) -> Tensor:
        """Scale the colours as for ImageNet, and put the channels first."""
        colours = (samples.float() / 255 - self.mean) / self.spread
        code = self.maxpool(self.bn1(self.conv1(colours.permute(0, 3, 1, 2))).relu())
        code = self.layer4(self.layer3(self.layer2(self.layer1(code))))  # (N, 512, height / 32, width / 32)
        logits: Tensor = self.fc(code.mean(dim=(2, 3)))
        return logits
