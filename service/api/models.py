"""GET /models: the models, their live versions, and how to call and train them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Response

from models.catalog import Specs
from models.spec import ModelSpec
from service.api.form_schemas import form_info
from service.api.schemas import Example, ModelInfo, ModelList
from service.api.signatures import (
    MOST_LISTED,
    body_schema,
    example_body,
    prediction_schema,
    signature,
    small_example,
    without_long_lists,
)
from service.delivery.rollout import Rollout
from service.errors import require_model
from service.execution.recipes import ReadRecipes, RecipeSchema
from service.inference.decoding import media_types
from service.inference.engine import Engine
from service.inference.working_set import WorkingSet
from service.media_types import JSON
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /models": Access("predict"),
    "GET /models/{model}": Access("predict", 404),
    "GET /models/{model}/example": Access("predict", 404),
}


_MOST_SCHEMAS = 12_000  # bytes, of all hyperparameter schemas in the list
_LONG = 48_000  # bytes of the list
_SHORT_EXAMPLE = 1_000  # bytes of an example that stays in a long list


def _shorten(models: Sequence[ModelInfo]) -> None:
    """Leave out what other addresses have: long lists of values; the schemas of the hyperparameters, which references
    replace, if they or the list are large; and larger examples if the list is still long.
    """
    for model in models:
        _leave_out(model)
    size = sum(len(model.model_dump_json()) for model in models)
    trainable = [model for model in models if model.hyperparameters]
    schemas = sum(len(orjson.dumps(model.hyperparameters)) for model in trainable)
    if schemas > _MOST_SCHEMAS or size > _LONG:
        size -= schemas
        for model in trainable:
            model.hyperparameters = {"$ref": f"models/{model.name}#/hyperparameters"}
    if size > _LONG:
        for model in models:
            if len(orjson.dumps(model.example)) > _SHORT_EXAMPLE:
                model.example = None


def _leave_out(model: ModelInfo) -> None:
    """Leave out long lists of categories and labels."""
    assert model.signature is not None
    assert model.body_schema is not None
    for entry in model.signature.inputs:
        if len(entry.values or ()) > MOST_LISTED:
            entry.values, model.shortened = None, True
    for output in model.signature.outputs:
        if len(output.labels or ()) > MOST_LISTED:
            output.labels, model.shortened = None, True
    if model.shortened:
        model.body_schema = without_long_lists(model.body_schema)


def router(
    specs: Mapping[str, ModelSpec],
    engine: Engine,
    networks: WorkingSet,
    rollout: Rollout,
    recipes: ReadRecipes,
    device: str,
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["models"])
    faults = specs.faults if isinstance(specs, Specs) else {}

    def describe(name: str, recipe: RecipeSchema | None) -> ModelInfo:
        spec, loaded = specs[name], engine.loaded(name)
        fault = rollout.faults.get(name) or (recipe.fault if recipe else None) or None
        return ModelInfo(
            name=name,
            summary=spec.summary,
            live=rollout.live.get(name),
            loaded=loaded.version if loaded else None,
            fault=fault,
            loading=name in engine.loading,
            unloaded=name in networks.unloaded,
            device=device,
            backend=loaded.network.backend if loaded else None,
            backend_reason=(loaded.network.reason or None) if loaded else None,
            forms=form_info(loaded.network.switched) if loaded else None,
            media_types=media_types(spec),
            signature=signature(spec),
            body_schema=body_schema(spec),
            example=small_example(spec),
            prediction_schema=prediction_schema(spec),
            **_learning(recipe),
        )

    def faulty(name: str, fault: str) -> ModelInfo:
        """Describe a model whose file cannot be used: its name and its fault, and nothing else is known."""
        return ModelInfo(name=name, fault=fault, device=device)

    @routes.get("/models", summary="All models")
    async def list_models() -> ModelList:
        schemas = await recipes()
        described = [describe(name, schemas.get(name)) for name in specs]
        _shorten(described)
        return ModelList(models=[*described, *(faulty(name, fault) for name, fault in faults.items())])

    @routes.get("/models/{model}", summary="One model")
    async def get_model(model: str) -> ModelInfo:
        if model in faults:
            return faulty(model, faults[model])
        require_model(model, specs)
        return describe(model, (await recipes()).get(model))

    @routes.get("/models/{model}/example", summary="A valid body", response_model=Example)
    async def get_example(model: str) -> Response:
        """The body of a prediction of one or a few samples, whatever its size."""
        require_model(model, specs)
        return Response(orjson.dumps(await asyncio.to_thread(example_body, specs[model])), media_type=JSON)

    return routes


def _learning(recipe: RecipeSchema | None) -> dict[str, Any]:
    """Return the fields that describe a recipe; none if there is none, or if its file cannot be used."""
    if recipe is None or recipe.fault:
        return {}
    return {
        "hyperparameters": dict(recipe.hyperparameters),
        "target": recipe.target,
        "metric": recipe.metric,
        "higher_is_better": recipe.higher_is_better,
    }
