"""Linear - activation - Linear: the network of the two small models."""

from torch import Tensor, nn

from models.activation import Activation, activation_module


class Perceptron(nn.Module):
    """float32 (N, features) -> float32 (N, outputs), through one hidden layer."""

    def __init__(self, *, features: int, outputs: int, hidden: int = 10, activation: Activation = "relu") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            activation_module(activation),
            nn.Linear(hidden, outputs),
        )

    def forward(self, samples: Tensor) -> Tensor:
        outputs: Tensor = self.layers(samples)  # (N, outputs)
        return outputs
