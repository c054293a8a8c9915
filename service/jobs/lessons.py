"""Orders to train, completed from the recipe of the model: hyperparameters, and its own data."""

import asyncio
from collections.abc import Mapping
from typing import Any

from service.data.datasets import Datasets
from service.delivery.gate import Policy
from service.errors import Invalid
from service.execution.recipes import RecipeSchema, complete_config, require_target
from service.jobs.learning import Lesson

Recipes = Mapping[str, RecipeSchema]


async def to_train_on(
    model: str, config: Mapping[str, Any], dataset: str | None, recipes: Recipes, datasets: Datasets
) -> tuple[Mapping[str, Any], str | None]:
    """Return the complete config, and the dataset version to train on; None for the data of the recipe.

    Raises Invalid.
    """
    config = complete_config(model, recipes, config)
    if dataset is None:
        return config, None
    if name := await _built_in(model, dataset, recipes, datasets):
        return _with_built_in(config, recipes[model].hyperparameters, name), None
    require_target(model, recipes)
    return config, dataset


def data_of_recipe(model: str, config: Mapping[str, Any], recipes: Recipes) -> str:
    """Return the name of the recipe's data that a config chooses. Raises Invalid if that is not known."""
    complete, names = complete_config(model, recipes, config), list(recipes[model].built_in)
    name = complete.get("dataset", names[0] if len(names) == 1 else None)
    if name not in names:
        raise Invalid("feedback needs a dataset that grows: name it as dataset, for example field or field@4")
    return str(name)


async def lesson_of(
    model: str,
    config: Mapping[str, Any],
    dataset: str,
    recipes: Recipes,
    datasets: Datasets,
    *,
    since: float,
    weight: int,
    chosen_as: Mapping[str, Any],
    promote: Policy,
) -> Lesson:
    """Return an order to train on a dataset and on feedback. Raises Invalid."""
    complete, default = complete_config(model, recipes, config), complete_config(model, recipes, {})
    require_target(model, recipes)
    name = await _built_in(model, dataset, recipes, datasets)
    if name is not None:
        schema = recipes[model].hyperparameters
        complete, default = _with_built_in(complete, schema, name), _with_built_in(default, schema, name)
    return Lesson(
        model=model,
        config=complete,
        ingest_config=default,
        dataset=dataset,
        built_in=name,
        since=since,
        weight=weight,
        chosen=chosen_as,
        promote=promote,
    )


async def require_dataset(model: str, dataset: str, recipes: Recipes, datasets: Datasets) -> None:
    """Raise Invalid or NotFound unless a model, which has a recipe, can be trained on a dataset."""
    require_target(model, recipes)
    if await _built_in(model, dataset, recipes, datasets) is None:
        await asyncio.to_thread(datasets.require, model, dataset)


async def _built_in(model: str, dataset: str, recipes: Recipes, datasets: Datasets) -> str | None:
    return await asyncio.to_thread(datasets.named_built_in, model, dataset, recipes[model].built_in)


def _with_built_in(config: Mapping[str, Any], schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a config that chooses the data `name` of the recipe, if the recipe has a choice."""
    choices = schema["properties"].get("dataset", {}).get("enum", ())
    return {**config, "dataset": name} if name in choices else dict(config)
