"""Execute an order to ingest a file."""

from dataclasses import replace
from typing import Any

from models.checkpoints.storage import Storage
from models.messages import Ingest, Ingested
from models.spec import ModelSpec
from training.datasets.built_in import as_version, known_digests
from training.datasets.ingest import Request, Tell, ingest
from training.recipe import Recipe, TrainingError


def ingested(order: Ingest, spec: ModelSpec, recipe: Recipe[Any], tell: Tell, *, keeps_file: bool = True) -> Ingested:
    """Make the version. Raises TrainingError if the recipe learns no files, DatasetError, and OSError of the store."""
    if recipe.target is None:
        raise TrainingError(cannot_learn_files(order.model))
    known, warnings = known_digests(spec, recipe, order.config, order.data)
    if order.from_built_in:
        with as_version(order, spec, recipe, Storage.at(order.store), tell) as (folder, refused):
            if refused:
                words = f"{refused:,} rows of the recipe's data are refused by the model's check, and left out"
                warnings = (*warnings, words)
            whole = replace(order, parent=folder, from_built_in=False)
            return _made(whole, spec, recipe, tell, known, warnings, keeps_file=keeps_file)
    return _made(order, spec, recipe, tell, known, warnings, keeps_file=keeps_file)


def _made(
    order: Ingest,
    spec: ModelSpec,
    recipe: Recipe[Any],
    tell: Tell,
    known: frozenset[bytes],
    warnings: tuple[str, ...],
    *,
    keeps_file: bool,
) -> Ingested:
    assert recipe.target
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
        weight=order.weight,
    )
    return replace(ingest(request, tell), built_in=tuple(recipe.built_in))


def cannot_learn_files(model: str) -> str:
    """Return the error for a recipe without a target."""
    return f'{model} cannot be trained on files: add target="label" or target="value" to training/{model}.py'
