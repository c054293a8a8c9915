"""Rows of a model with named inputs in training: checked and encoded by its spec, as requests are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.artifacts import ArtifactError, Artifacts, bound, plain
from models.checkpoints.artifact_files import Content, divided
from models.coding import Coder
from models.errors import InvalidInput
from models.padding import Padding, stacked
from models.samples import Columns
from models.spec import ModelSpec
from training.datasets.opened import StoredRows
from training.recipe import Dataset, Hyperparameters, Recipe, Split, TrainingError


@dataclass(frozen=True, slots=True)
class Coded:
    """Encoded samples of a split, with the methods of a tensor (N, ...) that training uses. See `call`."""

    columns: Columns
    padding: Padding
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, rows: slice | Tensor) -> "Coded":
        return self._with(self.columns[rows] if isinstance(rows, slice) else self.columns.take(_positions(rows)))

    def index_select(self, _: int, rows: Tensor) -> "Coded":
        """Return the samples at these positions."""
        return self[rows]

    def split(self, size: int) -> list["Coded"]:
        """Cut into parts of `size` samples; the last may be smaller."""
        return [self[begin : begin + size] for begin in range(0, len(self), size)]

    def to(self, device: str | torch.device) -> "Coded":
        """Return the samples whose batches are made on that device."""
        return replace(self, device=torch.device(device))

    def keywords(self) -> dict[str, Tensor]:
        """Return the network's keyword arguments: tensors (N, ...), padded, with lengths and masks."""
        arrays = stacked(self.columns, self.padding)
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}

    def _with(self, columns: Columns) -> "Coded":
        return replace(self, columns=columns)


@dataclass(frozen=True, slots=True)
class Uncoded:
    """Rows of a split that are too large for memory, with the methods of Coded: each batch is encoded when it is read.

    Raises TrainingError for a row that the version's `encode` refuses.
    """

    rows: StoredRows
    coder: Coder
    where: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Tensor) -> "Uncoded | Coded":
        return replace(self, rows=self.rows[rows]) if isinstance(rows, slice) else self._coded(_positions(rows))

    def index_select(self, _: int, rows: Tensor) -> Coded:
        """Encode the samples at these positions."""
        return self._coded(_positions(rows))

    def split(self, size: int) -> Iterator[Coded]:
        """Encode batches of `size` samples, one after the other; the last may be smaller."""
        for begin in range(0, len(self), size):
            yield self._coded(range(begin, min(begin + size, len(self))))

    def to(self, device: str | torch.device) -> "Uncoded":
        """Return the samples whose batches are made on that device."""
        return replace(self, device=torch.device(device))

    def _coded(self, places: Sequence[int]) -> Coded:
        columns = _encoded([self.rows[place] for place in places], self.coder, self.where)
        return Coded(columns, self.coder.spec.padding, self.device)


def call(network: nn.Module, samples: Any) -> Any:
    """Return the network's outputs for a batch of a split: a tensor (N, ...), or Coded samples."""
    return network(**samples.keywords()) if isinstance(samples, Coded) else network(samples)


def made_artifacts(
    recipe: Recipe[Any], config: Hyperparameters, dataset: Dataset
) -> tuple[Mapping[str, Any], Artifacts, Mapping[str, Content]]:
    """Return the artifacts of a run as the record keeps them, as functions get them, and the files of large ones.

    The labels of a dataset version are one of them, unless the recipe makes its own. Raises TrainingError.
    """
    labels = {"labels": list(dataset.labels)} if dataset.labels else {}
    if recipe.artifacts is None and not labels:
        return {}, {}, {}
    try:
        made = {**labels, **(recipe.artifacts(config, dataset) if recipe.artifacts else {})}
        packed, files = divided(made)
    except ArtifactError as err:
        raise TrainingError(str(err)) from err
    return packed, plain(made), files


def arguments_of(recipe: Recipe[Any], config: Hyperparameters, artifacts: Artifacts) -> dict[str, Any]:
    """Return the network's constructor arguments, which may depend on artifacts, e.g. the size of a vocabulary."""
    arguments: dict[str, Any] = bound(recipe.arguments, artifacts)(config)
    return arguments


def prepared(spec: ModelSpec, dataset: Dataset, artifacts: Artifacts) -> Dataset:
    """Check and encode the rows of a dataset with the artifacts of a version. A dataset of tensors is left unchanged.

    Raises TrainingError for a row that the spec refuses.
    """
    if not spec.inputs:
        return dataset
    coder = Coder(spec, artifacts)

    def coded(split: Split, name: str) -> Split:
        if isinstance(split.samples, StoredRows) and split.samples.is_large:
            return Split(Uncoded(split.samples, coder, f"the {name} split"), split.targets)
        return Split(Coded(_encoded(split.samples, coder, f"the {name} split"), spec.padding), split.targets)

    return replace(
        dataset,
        train=coded(dataset.train, "train"),
        validation=coded(dataset.validation, "validation"),
        test=coded(dataset.test, "test"),
    )


def _encoded(rows: Sequence[object], coder: Coder, where: str) -> Columns:
    arrays = []
    for position, row in enumerate(rows):
        try:
            arrays.append(coder(row))
        except InvalidInput as err:
            raise TrainingError(f"row {position} of {where} is refused: {err}") from err
    if not arrays:
        raise TrainingError(f"{where} has no rows")
    return Columns.of(arrays)


def _positions(rows: Tensor) -> list[int]:
    positions: list[int] = rows.tolist()
    return positions
