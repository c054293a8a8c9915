"""Recipe: all that the command line and the worker know of fitting a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.catalog import discover
from models.networks import Activation

if TYPE_CHECKING:  # matplotlib takes half a second to import, and only plots need it
    from matplotlib.axes import Axes

# The hyperparameters whose defaults recipes restate: `lr: LearningRate = 0.5`
Epochs = Annotated[int, Field(ge=1, le=10_000, description="passes over the training data")]
BatchSize = Annotated[int, Field(ge=1, le=65_536, description="samples per step")]
LearningRate = Annotated[float, Field(gt=0, le=100, description="learning rate: the largest one of the schedule")]
Optimizer = Annotated[
    Literal["sgd", "momentum", "rmsprop", "adam", "adamw"],
    Field(description="update rule; momentum is sgd with momentum"),
]
Schedule = Annotated[
    Literal["constant", "cooldown", "linear", "cosine", "one_cycle"],
    Field(description="course of the learning rate; cooldown falls in the last fifth of the steps"),
]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Hyperparameters(BaseModel):
    """What every recipe can be told. A recipe's Config restates the fields whose defaults differ and adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Epochs = 1
    batch_size: BatchSize = 50
    shuffle: bool = Field(True, description="draw the samples in a new order each epoch")
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.001
    schedule: Schedule = "constant"
    momentum: float = Field(0.9, ge=0, lt=1, description="for the optimizer momentum")
    alpha: float = Field(0.99, ge=0, lt=1, description="smoothing of rmsprop")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="smoothing of adam and adamw: of mean and square")
    weight_decay: float = Field(0.0, ge=0, le=10, description="L2 penalty; decoupled from the gradient in adamw")
    activation: Activation = Field("relu", description="activation function of the hidden layers")
    seed: int = Field(0, ge=0, lt=2**31, description="of start weights, order and augmentation")


class TrainingError(Exception):
    """A run that cannot go on. The message names the way out and no folder."""


class Cancelled(Exception):
    """Raised by a Report to stop the run at once; nothing is saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is. `step` counts from 1 over all epochs; `loss` is the mean since the last report."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Split:
    """Samples (N, ...) as the network takes them, and their targets (N, ...)."""

    samples: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: str) -> "Split":
        """Both tensors on that device."""
        return Split(self.samples.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """`train` is fitted, `validation` is chosen by, `test` is looked at once, for the record."""

    name: str
    train: Split
    validation: Split
    test: Split

    def to(self, device: str) -> "Dataset":
        """The whole of it on that device, so that no batch has to be carried there."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **splits)


C = TypeVar("C", bound=Hyperparameters)


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[C]):
    """How one model is fitted: plain functions, no state.

    arguments  config -> constructor arguments of the network
    load       config, data folder -> dataset. Raises TrainingError where the files are missing.
    fit        trains the network in place, telling `report` where it is. Raises TrainingError, Cancelled.
    evaluate   network in eval mode, split -> figures of merit
    details    as evaluate, with further figures by class, for the test split; None where there are none
    metric     the key of `evaluate` that decides between two versions
    loss       what the loss of a run is, with its unit
    presets    name -> hyperparameters that go together, for `--preset NAME`
    plot       draws the fit or the decision field into axes; None where there is nothing to draw
    """

    config: type[C]
    arguments: Callable[[C], dict[str, Any]]
    load: Callable[[C, Path], Dataset]
    fit: Callable[[nn.Module, Dataset, C, Report], None]
    evaluate: Callable[[nn.Module, Split], dict[str, float]]
    metric: str
    higher_is_better: bool
    loss: str = "loss"
    details: Callable[[nn.Module, Split], dict[str, float]] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plot: Callable[[nn.Module, Dataset, "Axes"], None] | None = None


@cache
def recipes() -> dict[str, Recipe[Any]]:
    """Model name -> recipe, for every training/<name>.py that has a RECIPE."""
    return discover("training", "RECIPE", Recipe)
