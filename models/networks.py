"""The networks, as PyTorch modules. Input scaling is part of each network, because the weights depend on it.

This is a separate module because it imports torch. The specs refer to the classes by name (see `spec.by_name`), so
that a service that runs exported networks does not import torch.
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
    """Build the activation function of that name. Raises ValueError if the name is unknown."""
    try:
        return _ACTIVATIONS[name]()
    except KeyError as err:
        raise ValueError(f"unknown activation {name!r}: use {', '.join(_ACTIVATIONS)}") from err


class Perceptron(nn.Module):
    """Perceptron with one hidden layer: float32 (N, features) -> float32 (N, outputs)."""

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
    """CNN: uint8 (N, 1, 28, 28), white ink on black -> logits float32 (N, 10). 28,938 parameters.

    Pooling comes before the activation: all activations are monotonic, so the outputs are the same for a quarter of
    the computation. The indices of the layers with weights, and so the state_dict keys, do not depend on this order.
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
