"""Execute an order to ingest a file."""

from dataclasses import replace
from typing import Any

from models.messages import Ingest, Ingested
from models.spec import ModelSpec
from training.datasets.built_in import known_digests
from training.datasets.ingest import Request, Tell, ingest
from training.recipe import Recipe, TrainingError


def ingested(order: Ingest, spec: ModelSpec, recipe: Recipe[Any], tell: Tell, *, keeps_file: bool = True) -> Ingested:
    """Make the version. Raises TrainingError if the recipe learns no files, DatasetError, and OSError of the store."""
    if recipe.target is None:
        raise TrainingError(cannot_learn_files(order.model))
    known, warnings = known_digests(spec, recipe, order.config, order.data)
    request = Request(
        model=order.model,
        spec=spec,
        target=recipe.target,
        labels=recipe.labels,
        store=order.store.root,
        job=order.job,
        source=order.source,
        format=order.format,
        options=order.options,
        parent=order.parent,
        kin=order.kin,
        allow_rejected=order.allow_rejected,
        known=known,
        warnings=warnings,
        keeps_file=keeps_file,
    )
    return replace(ingest(request, tell), built_in=tuple(recipe.built_in))


def cannot_learn_files(model: str) -> str:
    """Return the error for a recipe without a target."""
    return f'{model} cannot be trained on files: add target="label" or target="value" to training/{model}.py'
