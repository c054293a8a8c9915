"""The network of `shapes`."""

from torch import Tensor, nn


class ShapeCNN(nn.Module):
    """CNN: uint8 (N, 32, 32, 3) -> logits (N, 3)."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),  # (N, width, 16, 16)
            nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),  # (N, 2 * width, 8, 8)
            nn.Conv2d(2 * width, 4 * width, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),  # (N, 4 * width, 4, 4)
            nn.Flatten(),
            nn.Linear(64 * width, 3),
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Put the channels first, and scale to 0..1."""
        logits: Tensor = self.layers(samples.permute(0, 3, 1, 2).float() / 255)
        return logits
