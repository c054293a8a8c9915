"""Messages between the torch subprocess and the processes that give it orders, and their JSON codec.

An order is answered by any number of `Progressed`, and by `Listening` if several nodes train, and then by one result of
its type, or by `Failed`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import Field, TypeAdapter

from models.checkpoints.location import DatasetFile, StoreLocation
from models.checkpoints.record import Record
from models.dataset_options import DatasetOptions as DatasetOptions  # noqa: PLC0414 - for all who send an Ingest
from models.groups import Group, Listening
from models.packed_batches import PackedBatch
from models.spec import Method


class FailureKind(Enum):
    """The cause of a failure."""

    HYPERPARAMETERS = "hyperparameters"  # not valid
    TRAINING = "training"  # the run, or its data
    CHECKPOINT = "checkpoint"  # missing, damaged, or of another network
    STORE = "store"  # cannot be written
    OBJECTS = "objects"  # the object store is away
    GRADIENT = "gradient"  # the network has none
    DATASET = "dataset"  # a file that becomes no dataset version
    UNEXPECTED = "unexpected"  # an exception that no other kind covers


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a run. `step` counts from 1 over all epochs; `loss` is the mean since the last report."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """Progress report of a `Fit`."""

    point: Progress
    type: Literal["progressed"] = "progressed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A refused row: its number from 1, or from 0 in arrays; `value` is cut; `picture`: whether it has a thumbnail."""

    row: int
    column: str | None
    value: str | None
    detail: str
    picture: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalReason:
    """The refused rows with one title: their number, and the first ones."""

    title: str
    rows: int
    first: tuple[RefusedRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """Counts of a dataset version, and of the rows that it was made of.

    examples            number by split: "train", "validation", "test"
    by_label            label -> number by split; empty if the targets are values
    rows                rows in the new file, of which `rejected` were refused and `duplicates` were there before
    conflicting_labels  rows with the content of an earlier one, but another target; they are left out
    added               examples that the parent does not have
    reference           range of each statistic of the spec's check over the training split: name -> [least, greatest]
    manifest_sha256     of the manifest, which has the digests of the version's other files
    """

    format: str
    schema: Mapping[str, Any]
    examples: Mapping[str, int]
    by_label: Mapping[str, Mapping[str, int]]
    rows: int
    rejected: int
    duplicates: int
    conflicting_labels: int
    added: int
    by_reason: tuple[RefusalReason, ...] = ()
    warnings: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Failure of any order. Callers see `title` and `detail`: no path, no trace.

    An `Ingest` that refused too many rows has a `summary`.
    """

    kind: FailureKind
    title: str
    detail: str
    summary: DatasetSummary | None = None
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Result of `Fit`. The weights are in the store, under their digest."""

    record: Record
    metric: str
    higher_is_better: bool
    type: Literal["fitted"] = "fitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A candidate and the live version on the same `rows` validation examples.

    differ           examples that they answer differently
    candidate_right  examples on which the candidate has the better score: it is right and live wrong, or its error is
                     the smaller one; live_right: the other way round
    mean_gain        mean of the candidate's gain over live, in the unit of the metric; positive if it is better
    standard_error   of mean_gain, if scores are errors; None if they are right or wrong answers
    """

    rows: int
    differ: int
    candidate_right: int
    live_right: int
    mean_gain: float
    standard_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Result of `Evaluate`: figures on the held-out splits.

    `pairs`: the comparison with the candidate; None without one, or if the recipe has no outcomes of single examples.
    `old` and `new` are the same over the examples that `Evaluate.trained_on` has, and over the others; None if there
    are no such examples, or if there is no such version, or the same one. `drift`: as in the record, if asked for.
    """

    metrics: Mapping[str, float]
    dataset: str
    pairs: Pairs | None = None
    old: Pairs | None = None
    new: Pairs | None = None
    drift: Mapping[str, Any] = field(default_factory=dict)
    type: Literal["evaluated"] = "evaluated"


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """Result of `Adopt`. The weights are in the store, under their digest."""

    record: Record
    type: Literal["adopted"] = "adopted"


@dataclass(frozen=True, kw_only=True)
class ExportDone:
    """Result of `Export`: the file is written, unless the store cannot be written."""

    type: Literal["export_done"] = "export_done"


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Result of `Explain`: see `attribution.attribute`."""

    outputs: PackedBatch
    attributions: PackedBatch
    type: Literal["explained"] = "explained"


@dataclass(frozen=True, kw_only=True)
class Ingested:
    """Result of `Ingest`: the version with that digest is in `folder`, relative to the store.

    `built_in`: names of the recipe's own data, which count as version 1.
    """

    sha256: str
    folder: str
    summary: DatasetSummary
    built_in: tuple[str, ...] = ()
    type: Literal["ingested"] = "ingested"


@dataclass(frozen=True, kw_only=True)
class Assisted:
    """Result of `Assist`."""

    type: Literal["assisted"] = "assisted"


Result = Fitted | Evaluated | Adopted | ExportDone | Explained | Ingested | Assisted
Message = Annotated[Progressed | Listening | Failed | Result, Field(discriminator="type")]
R = TypeVar("R", bound=Result)


class Order(Generic[R]):
    """An order that is answered by an R. Paths are absolute."""

    answer: ClassVar[type[Any]]

    def answered_by(self, message: Message) -> R | Failed | None:
        """Return `message` if it ends this order; None for progress, and for the result of another type of order."""
        if isinstance(message, Failed):
            return message
        result: R | None = message if isinstance(message, self.answer) else None
        return result


@dataclass(frozen=True, kw_only=True)
class Fit(Order[Fitted]):
    """Train a network, evaluate it, and save its weights. `history` is the progress of earlier attempts at `job`.

    Without `dataset`, the recipe loads the data that the config names. With a `group`, this is its rank 0.
    """

    answer = Fitted
    model: str
    config: Mapping[str, Any]
    data: Path
    store: StoreLocation
    job: str
    attempt: int
    device: str
    tensorboard: bool
    history: tuple[Progress, ...] = ()
    dataset: DatasetFile | None = None
    group: Group | None = None
    type: Literal["fit"] = "fit"


@dataclass(frozen=True, kw_only=True)
class Assist(Order[Assisted]):
    """Take part in a fit as another rank of its group, and write nothing. The paths of `fit` are those of this node."""

    answer = Assisted
    fit: Fit
    group: Group
    rank: int
    type: Literal["assist"] = "assist"


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A checkpoint in the store, and its record."""

    path: Path
    record: Record


@dataclass(frozen=True, kw_only=True)
class Evaluate(Order[Evaluated]):
    """Evaluate a checkpoint on the held-out splits of `dataset`; without it, of the config's dataset.

    Compare `candidate` with it, if given: also on the examples of `trained_on`, the dataset version that the checkpoint
    was trained on, and on the others apart. With `drift`, also measure the reference of drift.
    """

    answer = Evaluated
    model: str
    config: Mapping[str, Any]
    data: Path
    path: Path
    record: Record
    store: StoreLocation | None = None
    candidate: CheckpointFile | None = None
    dataset: DatasetFile | None = None
    trained_on: DatasetFile | None = None
    drift: bool = False
    type: Literal["evaluate"] = "evaluate"


@dataclass(frozen=True, kw_only=True)
class Adopt(Order[Adopted]):
    """Check an uploaded state_dict, or bundle, by building the network from it, and save it in the store."""

    answer = Adopted
    model: str
    path: Path
    arguments: Mapping[str, Any]
    store: StoreLocation
    bundle: bool = False
    type: Literal["adopt"] = "adopt"


@dataclass(frozen=True, kw_only=True)
class Export(Order[ExportDone]):
    """Export a checkpoint in ONNX form to its file in the store (see `Storage.export`)."""

    answer = ExportDone
    model: str
    path: Path
    record: Record
    store: StoreLocation
    judge: bool = False  # its numeric forms, too, if an order before has read its validation split
    type: Literal["export"] = "export"


@dataclass(frozen=True, kw_only=True)
class Explain(Order[Explained]):
    """Compute outputs and attributions of samples: by the named `inputs`, of the `output` (empty: the first)."""

    answer = Explained
    model: str
    path: Path
    record: Record
    samples: PackedBatch
    method: Method
    inputs: tuple[str, ...] = ()
    output: str = ""
    type: Literal["explain"] = "explain"


@dataclass(frozen=True, kw_only=True)
class Ingest(Order[Ingested]):
    """Make a dataset version of the file `source`, an original in the store, and of the examples of `parent`.

    format          "auto", or a name in `training.datasets.readers`
    parent          folder of the version that grows
    kin             folders of the other versions of the name, the first one first: their contents keep their splits
    allow_rejected  greatest share of refused rows, 0 to 1
    config          complete default config of the recipe, whose built-in training split is no held-out data
    from_built_in   whether the version grows from the built-in data, all splits of it
    weight          how often training repeats the examples of the file that are in the train split
    """

    answer = Ingested
    model: str
    store: StoreLocation
    job: str
    attempt: int
    source: Path
    data: Path
    format: str = "auto"
    options: DatasetOptions = field(default_factory=DatasetOptions)
    parent: Path | None = None
    kin: tuple[Path, ...] = ()
    allow_rejected: float = 0.0
    config: Mapping[str, Any] | None = None
    from_built_in: bool = False
    weight: int = 1
    type: Literal["ingest"] = "ingest"


AnyOrder = Annotated[Fit | Assist | Evaluate | Adopt | Export | Explain | Ingest, Field(discriminator="type")]


def encode_order(order: Order[Any]) -> bytes:
    """Encode as one line of JSON, without its end. Raises ValueError for numbers that are not finite."""
    return json.dumps(_orders().dump_python(cast(AnyOrder, order), mode="json"), allow_nan=False).encode()


def encode_message(message: Message) -> bytes:
    """Encode as one line of JSON, without its end. Raises ValueError for numbers that are not finite."""
    return json.dumps(_messages().dump_python(message, mode="json"), allow_nan=False).encode()


def decode_order(line: bytes) -> AnyOrder:
    """Decode the line of an order. Raises ValueError."""
    return _orders().validate_json(line)


def decode_message(line: bytes) -> Message:
    """Decode the line of a message. Raises ValueError."""
    return _messages().validate_json(line)


@cache
def _orders() -> TypeAdapter[AnyOrder]:
    return TypeAdapter(AnyOrder)


@cache
def _messages() -> TypeAdapter[Message]:
    return TypeAdapter(Message)
