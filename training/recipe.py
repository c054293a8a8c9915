"""Recipe: the interface between a trainable model and the command line or worker."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.catalog import NAME, Found, discover, leave_aside, specs
from models.messages import Progress as Progress  # noqa: PLC0414 - for authors of recipes, too
from models.networks import Activation
from models.spec import Array

if TYPE_CHECKING:  # matplotlib takes half a second to import, and only plots need it
    from matplotlib.axes import Axes

# The hyperparameters whose defaults recipes restate: `lr: LearningRate = 0.5`
Epochs = Annotated[int, Field(ge=1, le=10_000, description="passes over the training data")]
BatchSize = Annotated[int, Field(ge=1, le=65_536, description="samples per step")]
LearningRate = Annotated[float, Field(gt=0, le=100, description="learning rate: the maximum of the schedule")]
Optimizer = Annotated[
    Literal["sgd", "momentum", "rmsprop", "adam", "adamw"],
    Field(description="optimizer; momentum is sgd with momentum"),
]
Schedule = Annotated[
    Literal["constant", "cooldown", "linear", "cosine", "one_cycle"],
    Field(description="learning rate schedule; cooldown decreases over the last fifth of the steps"),
]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Hyperparameters(BaseModel):
    """Hyperparameters of every recipe. A recipe's Config redefines fields with other defaults and adds more."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Epochs = 1
    batch_size: BatchSize = 50
    shuffle: bool = Field(True, description="shuffle the samples in each epoch")
    optimizer: Optimizer = "adam"
    lr: LearningRate = 0.001
    schedule: Schedule = "constant"
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the optimizer momentum")
    alpha: float = Field(0.99, ge=0, lt=1, description="decay rate of rmsprop")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="decay rates of adam and adamw: of mean and square")
    weight_decay: float = Field(
        0.0, ge=0, le=10, description="weight decay: L2 penalty, decoupled from the gradient in adamw"
    )
    activation: Activation = Field("relu", description="activation function of the hidden layers")
    class_weights: bool = Field(False, description="weight the loss so that rare labels count as much as frequent ones")
    patience: int = Field(
        0, ge=0, le=10_000, description="early stopping: epochs without a better validation metric; 0: train all epochs"
    )
    lr_finder: bool = Field(False, description="choose lr by a range test of 100 steps before training; lr is not used")
    seed: int = Field(0, ge=0, lt=2**31, description="random seed of initial weights, order and augmentation")


class TrainingError(Exception):
    """Error: a run cannot continue. The message says how to fix it and names no folder."""


class Cancelled(Exception):
    """Raised by a Report to stop the run; nothing is saved."""


Report = Callable[[Progress], None]


def checked(report: Report, check: Callable[[], None]) -> Report:
    """Call `check` after each report (see Interruption.check)."""

    def report_and_check(progress: Progress) -> None:
        report(progress)
        check()

    return report_and_check


@dataclass(frozen=True, slots=True)
class Split:
    """Samples (N, ...) as the network takes them, and their targets (N, ...).

    For a model with named inputs, `Recipe.load` returns rows: values by the names of the inputs, as in the body of a
    request. The spec checks and encodes them (see `training.rows`).
    """

    samples: Any  # a tensor; of a model with named inputs, a list of rows, and once they are encoded, Coded
    targets: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: str) -> "Split":
        """Copy both tensors to a device."""
        return Split(self.samples.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The splits: `train` for training, `validation` for choices, `test` only for the metrics in the record.

    A dataset version has a digest, the labels of its targets, unless the recipe fixes them, and the digests of the
    contents of its validation samples, uint8 (N, 32).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    labels: tuple[str, ...] = ()
    sha256: str = ""
    validation_digests: Array | None = None

    def to(self, device: str) -> "Dataset":
        """Copy all splits to a device, so that batches need no transfer."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **splits)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcome of each example of a split, in its order.

    scores   (N,): the metric is their mean: 1 for a right answer and 0 for a wrong one, or the error of each example
    answers  (N, ...): the answers; None if two answers differ only if their scores do
    """

    scores: Tensor
    answers: Tensor | None = None


C = TypeVar("C", bound=Hyperparameters)


def no_files(_: Path) -> Mapping[str, Any]:
    """Default `fixture`: the dataset needs no files."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Recipe(Generic[C]):
    """How one model is trained: plain functions, no state.

    arguments  config -> constructor arguments of the network. With a parameter `artifacts`, it gets those, too.
    artifacts  config, dataset as `load` returned it -> what belongs to the weights, e.g. a vocabulary made of the
               training rows: texts, numbers, lists, dicts and NumPy arrays by name. The functions of the spec get them.
    load       config, data folder -> dataset. Raises TrainingError if the files are missing.
    fit        trains the network in place and calls `report`. Raises TrainingError, Cancelled.
    evaluate   network in eval mode, split -> metrics
    target     the other field of a row of a user's file: "label", and `fit` and `evaluate` get targets int64
               (N,), or "value", float32 (N, k). Without it the model is trained on the data of `load` only.
    labels     the labels, in the order of the network's outputs, if they are fixed. By default they come from the
               file: they are `Dataset.labels` and travel as the artifact `labels`.
    details    like evaluate, with metrics by class, for the test split; None if there are none
    metric     the key of `evaluate` that decides between two versions
    loss       name of the loss, with its unit
    presets    name -> named set of hyperparameters, for `--preset NAME`
    plot       plots the fit or the decision regions into axes; None if there is no plot
    outcomes   network in eval mode, split -> the outcome of each example, by which the gate compares two versions.
               Not needed with `metrics.classification` or `metrics.regression`; see `training.outcomes`.
    built_in   names of the data that `load` returns -> examples in train, validation and test: they are listed as
               datasets before a run has read them. Data that is not named here is listed once it was trained on.
    fixture    prepares the contract tests: writes a small dataset into a data folder, and returns the hyperparameters
               to run with. By default no files, and the defaults.
    """

    config: type[C]
    arguments: Callable[..., dict[str, Any]]
    load: Callable[[C, Path], Dataset]
    fit: Callable[[nn.Module, Dataset, C, Report], None]
    evaluate: Callable[[nn.Module, Split], dict[str, float]]
    metric: str
    higher_is_better: bool
    loss: str = "loss"
    artifacts: Callable[[C, Dataset], Mapping[str, Any]] | None = None
    target: Literal["label", "value"] | None = None
    labels: tuple[str, ...] | None = None
    details: Callable[[nn.Module, Split], dict[str, float]] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plot: Callable[[nn.Module, Dataset, "Axes"], None] | None = None
    outcomes: Callable[[nn.Module, Split], Outcomes] | None = None
    built_in: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fixture: Callable[[Path], Mapping[str, Any]] = no_files

    def __post_init__(self) -> None:
        """Raise ValueError if `evaluate` says which figures it returns, and `metric` is none of them, or for built-in
        data without a proper name or a count for each split.
        """
        for name, examples in self.built_in.items():
            if not NAME.fullmatch(name) or list(examples) != ["train", "validation", "test"]:
                example = '{"name": {"train": 8, "validation": 1, "test": 1}}'
                raise ValueError(f"built_in has {name!r}: write it as {example}")
        figures: tuple[str, ...] | None = getattr(self.evaluate, "figures", None)
        if figures is not None and self.metric not in figures:
            raise ValueError(unknown_metric(self.metric, figures))


def unknown_metric(metric: str, figures: Iterable[str]) -> str:
    """Return the error for a metric that `evaluate` does not return."""
    return f"the metric {metric!r} is not among the figures of evaluate: {', '.join(sorted(figures)) or 'none'}"


@cache
def discovered() -> Found[Recipe[Any]]:
    """Find the recipes, for each training/<name>.py that has a RECIPE and each models/<name>.py that has a SPEC.

    Raises ProjectError.
    """
    found = discover("training", "RECIPE", Recipe)
    for name in found.usable.keys() - specs().keys():
        leave_aside(found, "training", f"{name}.py", f"models/{name}.py is missing or was left aside")
    return found


def recipes() -> dict[str, Recipe[Any]]:
    """Map model names to recipes."""
    return discovered().usable


def recipe_faults() -> dict[str, str]:
    """Map the names of models that cannot be trained to the file at fault and the reason."""
    return discovered().faults("training") | specs().faults
