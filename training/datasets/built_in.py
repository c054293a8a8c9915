"""The data that is built into a recipe: its training split is never held out of a dataset version."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from models.coding import Coder
from models.errors import InvalidInput
from models.signature import is_missing
from models.spec import ModelSpec
from training.datasets.ingest import known_digest
from training.recipe import Recipe, TrainingError


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
