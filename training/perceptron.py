"""Hyperparameters shared by the recipes of the two perceptrons."""

from typing import Any

from pydantic import Field

from training.recipe import Hyperparameters, Optimizer


class PerceptronConfig(Hyperparameters):
    """Linear - activation - Linear, trained by gradient descent."""

    optimizer: Optimizer = "sgd"
    hidden: int = Field(10, ge=1, le=1_000, description="width of the hidden layer")


def arguments(config: PerceptronConfig) -> dict[str, Any]:
    """The network's constructor arguments."""
    return {"hidden": config.hidden, "activation": config.activation}
