"""GET /models: the models, their live versions, and how to call and train them."""

import asyncio
from collections.abc import Mapping

import orjson
from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from models.spec import ModelSpec
from service.api.openapi import body_schema, example_body, small_example
from service.api.schemas import Example, ModelInfo, ModelList
from service.delivery.rollout import Rollout
from service.errors import require_model
from service.execution.recipes import ReadRecipes, RecipeSchema
from service.inference.decoding import media_types
from service.inference.engine import Engine
from service.media_types import JSON
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /models": Access("predict"),
    "GET /models/{model}": Access("predict", 404),
    "GET /models/{model}/example": Access("predict", 404),
}


def router(
    specs: Mapping[str, ModelSpec],
    engine: Engine,
    rollout: Rollout,
    recipes: ReadRecipes,
    device: str,
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["models"])

    def describe(name: str, recipe: RecipeSchema | None) -> ModelInfo:
        spec, loaded = specs[name], engine.loaded(name)
        return ModelInfo(
            name=name,
            summary=spec.summary,
            live=rollout.live.get(name),
            loaded=loaded.version if loaded else None,
            fault=rollout.faults.get(name),
            device=device,
            backend=loaded.network.backend if loaded else None,
            backend_reason=(loaded.network.reason or None) if loaded else None,
            media_types=media_types(spec),
            body_schema=body_schema(spec),
            example=small_example(spec),
            prediction_schema=TypeAdapter(spec.prediction).json_schema(),
            hyperparameters=dict(recipe.hyperparameters) if recipe else None,
            metric=recipe.metric if recipe else None,
            higher_is_better=recipe.higher_is_better if recipe else None,
        )

    @routes.get("/models", summary="All models")
    async def list_models() -> ModelList:
        schemas = await recipes()
        return ModelList(models=[describe(name, schemas.get(name)) for name in specs])

    @routes.get("/models/{model}", summary="One model")
    async def get_model(model: str) -> ModelInfo:
        require_model(model, specs)
        return describe(model, (await recipes()).get(model))

    @routes.get("/models/{model}/example", summary="A valid body", response_model=Example)
    async def get_example(model: str) -> Response:
        """The body of a prediction of one or a few samples, whatever its size."""
        require_model(model, specs)
        return Response(orjson.dumps(await asyncio.to_thread(example_body, specs[model])), media_type=JSON)

    return routes
