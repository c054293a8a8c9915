"""The networks. All that their weights depend on, scaling too, lies inside them.

A module of their own because it imports torch: the specs name these classes (see `spec.by_name`), so that a service
which runs exported networks answers without it.
"""

from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "sigmoid", "tanh", "softplus"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


def activation_module(name: Activation) -> nn.Module:
    """The module of that name. Raises ValueError for an unknown one."""
    try:
        return _ACTIVATIONS[name]()
    except KeyError as err:
        raise ValueError(f"unknown activation {name!r}: use {', '.join(_ACTIVATIONS)}") from err


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


class MnistCNN(nn.Module):
    """uint8 (N, 1, 28, 28), white ink on black -> logits float32 (N, 10). 28,938 parameters.

    Pooling stands before the activation: every activation here rises, so the outputs are the same, from a quarter of
    the work. The layers with weights keep the places, and so the keys, that they have in the other order.
    """

    def __init__(self, *, activation: Activation = "relu") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=5, padding=2),
            nn.MaxPool2d(2),  # (N, 16, 14, 14)
            activation_module(activation),
            nn.Conv2d(16, 32, kernel_size=5, padding=2),
            nn.MaxPool2d(2),  # (N, 32, 7, 7)
            activation_module(activation),
            nn.Flatten(),
            nn.Linear(1568, 10),
        )

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = self.layers(samples.float() / 255)  # (N, 10)
        return logits
