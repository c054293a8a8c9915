"""The network of `denoise`."""

from torch import Tensor, nn


class Denoiser(nn.Module):
    """Estimates the noise and subtracts it: uint8 (N, height, width) -> float32 (N, height, width) in 0..255."""

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, kernel_size=3, padding=1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Work on levels from 0 to 1."""
        levels = picture[:, None].float() / 255  # (N, 1, height, width)
        clean: Tensor = 255 * (levels - self.noise(levels))[:, 0]
        return clean
