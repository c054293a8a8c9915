"""The network of NAME, in a separate file: the web process does not import torch."""

from torch import Tensor, cat, nn

# isort: split
from models.networks import Activation, activation_module


class Network(nn.Module):
    """Mean and largest of the vectors of the words, then a perceptron: logits (N, 2).

    It gets words int64 (N, L), padded to the longest text, and mask bool (N, L), True
    for real words.
    """

    def __init__(
        self,
        *,
        words: int = 1,
        width: int = 16,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.vectors = nn.Embedding(words, width)
        self.layers = nn.Sequential(
            nn.Linear(2 * width, width),
            activation_module(activation),
            nn.Linear(width, 2),
        )

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Leave the padding out of the mean and of the largest."""
        vectors = self.vectors(words)  # (N, L, width)
        real = mask[:, :, None]
        mean = (vectors * real).sum(dim=1) / real.sum(dim=1)
        largest = vectors.masked_fill(~real, -1e9).amax(dim=1)
        logits: Tensor = self.layers(cat([mean, largest], dim=1))
        return logits
