"""The network of NAME, in a separate file: the web process does not import torch."""

from torch import Tensor, nn

# isort: split
from models.networks import Activation, activation_module


class Network(nn.Module):
    """CNN: uint8 (N, height, width, 3) -> logits float32 (N, classes)."""

    def __init__(self, *, classes: int = 2, activation: Activation = "relu") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=3, padding=1),
            activation_module(activation),
            nn.MaxPool2d(2),  # (N, 8, 16, 16)
            nn.Conv2d(8, 16, kernel_size=3, padding=1),
            activation_module(activation),
            nn.AdaptiveAvgPool2d(1),  # (N, 16, 1, 1)
            nn.Flatten(),
            nn.Linear(16, classes),
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Scale to 0..1 and put the channels first. The scale belongs to the weights."""
        logits: Tensor = self.layers(samples.permute(0, 3, 1, 2).float() / 255)
        return logits
