"""The network of NAME, in a separate file: the web process does not import torch."""

import torch
from torch import Tensor, nn

# isort: split
from models.networks import Activation, activation_module


class Network(nn.Module):
    """Scaled numbers and a vector for each category, then a perceptron: logits (N, 2).

    It gets each input by its name: carrier int64 (N,), the position of the category;
    weight and distance float32 (N,), NaN for a missing distance.
    """

    def __init__(self, *, hidden: int = 10, activation: Activation = "relu") -> None:
        super().__init__()
        self.carriers = nn.Embedding(3, 4)
        self.layers = nn.Sequential(
            nn.Linear(7, hidden),
            activation_module(activation),
            nn.Linear(hidden, 2),
        )

    def forward(self, carrier: Tensor, weight: Tensor, distance: Tensor) -> Tensor:
        """Replace a missing number with zero, and tell the layers that it is missing."""
        missing = distance.isnan()
        known = distance.masked_fill(missing, 0)
        numbers = torch.stack([weight / 50, known / 3_000, missing.float()], dim=1)
        columns = torch.cat([self.carriers(carrier), numbers], dim=1)  # (N, 7)
        logits: Tensor = self.layers(columns)
        return logits
