"""The network of `same_digit`."""

from torch import Tensor, nn


class Siamese(nn.Module):
    """One encoder for both pictures, uint8 (N, 8, 8); their difference decides -> logit (N, 1)."""

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (N, 16, 4, 4)
            nn.Flatten(),
            nn.Linear(256, width),
        )
        self.out = nn.Linear(width, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Compare the codes of both pictures."""
        one, other = (self.encode(picture[:, None].float() / 255) for picture in (left, right))
        logits: Tensor = self.out((one - other).abs())
        return logits
