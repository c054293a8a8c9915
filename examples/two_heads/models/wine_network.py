"""The network of `wine`."""

from torch import Tensor, nn


class WineNet(nn.Module):
    """Two heads on one body: measurements float32 (N, 12) -> logits (N, 3) and volume per cent (N,)."""

    def __init__(self, *, hidden: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, hidden), nn.ReLU())  # scales the columns, too
        self.cultivar = nn.Linear(hidden, 3)
        self.alcohol = nn.Linear(hidden, 1)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs in the order of the spec. Wines have around 13 % of alcohol."""
        code = self.body(samples)
        return self.cultivar(code), 13 + self.alcohol(code)[:, 0]
