"""The data that is built into a recipe: its training split is never held out of a dataset version, and versions can
grow from it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from models.checkpoints.storage import Storage
from models.coding import Coder
from models.errors import InvalidInput
from models.example_files import Example, write_examples
from models.messages import DatasetOptions, Ingest
from models.signature import is_missing
from models.spec import Array, ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.ingest import Request, Tell, ingest, known_digest
from training.datasets.splits import SPLITS
from training.recipe import Dataset, Recipe, Split, TrainingError


def known_digests(
    spec: ModelSpec, recipe: Recipe[Any], config: Mapping[str, Any] | None, data: Path
) -> tuple[frozenset[bytes], tuple[str, ...]]:
    """Return the digests of the samples of the built-in training split, and a warning if it cannot be read."""
    if config is None:
        return frozenset(), ()
    try:
        samples = recipe.load(recipe.config.model_validate(config), data).train.samples
    except (TrainingError, ValidationError, OSError) as err:
        return frozenset(), (f"rows of the built-in training data could not be told apart: {err}",)
    if isinstance(samples, torch.Tensor):
        return frozenset(known_digest(sample) for sample in samples.detach().cpu().numpy()), ()
    coder = Coder(spec, {})
    return frozenset(digest for row in samples if (digest := _of_row(row, coder)) is not None), ()


def _of_row(row: Any, coder: Coder) -> bytes | None:
    try:
        values = coder.values(row)
    except InvalidInput:
        return None
    given = {next(iter(coder.spec.inputs)): row} if isinstance(row, str) else row
    return known_digest({name: None if is_missing(given.get(name)) else values[name] for name in values})


@contextmanager
def as_version(
    order: Ingest, spec: ModelSpec, recipe: Recipe[Any], storage: Storage, tell: Tell
) -> Iterator[tuple[Path, int]]:
    """Make a version of the built-in data that `order.config` names, for as long as another one is made from it.

    Yields its folder, and the count of rows that the model's check refuses. Its file is kept among the originals.
    Raises DatasetError, TrainingError.
    """
    assert recipe.target
    scratch = storage.dataset_draft(order.model, f"{order.job}-parent")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        file = scratch / "examples"
        options = _write(file, recipe.load(recipe.config.model_validate(order.config), order.data), spec, recipe)
        request = Request(
            model=order.model,
            spec=spec,
            target=recipe.target,
            labels=recipe.labels,
            store=scratch,
            job=order.job,
            source=file,
            options=options,
            allow_rejected=1.0,
        )
        made = ingest(request, tell)
        for path in Storage(scratch).originals(order.model):
            target = storage.original(order.model, path.name)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            storage.publish(target)
        yield scratch / made.folder, made.summary.rejected
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(file: Path, dataset: Dataset, spec: ModelSpec, recipe: Recipe[Any]) -> DatasetOptions:
    try:
        return write_examples(file, spec, _examples(dataset, spec, recipe))
    except (ValueError, TypeError) as err:
        raise DatasetError("Built-in data", f"no version can grow from the built-in data: {err}") from err


def _examples(dataset: Dataset, spec: ModelSpec, recipe: Recipe[Any]) -> Iterator[Example]:
    labels = recipe.labels or dataset.labels
    for name in SPLITS:
        split: Split = getattr(dataset, name)
        entries = split.samples if spec.inputs else _entries(split.samples, spec)
        for entry, target in zip(entries, split.targets.tolist(), strict=True):
            yield Example(entry, labels[target] if labels and recipe.target == "label" else target, name)


def _entries(samples: torch.Tensor, spec: ModelSpec) -> Sequence[Any]:
    """Return the entries that `preprocess` makes these samples of. Raises DatasetError if they cannot be known."""
    found: Array = samples.detach().cpu().numpy()
    try:
        entries = found.reshape(len(found), *spec.tensor.shape).astype(spec.tensor.dtype)
        same = np.array_equal(spec.preprocess(entries), found)
    except ValueError:
        same = False
    if not same:
        raise DatasetError(
            "Built-in data", "the samples of the recipe are not the entries of requests: send them as a dataset instead"
        )
    return list(entries)
