"""Settings of retraining over HTTP."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Request

from models.spec import ModelSpec
from service.api.durations import duration_of, seconds_in
from service.api.retrain_schemas import RetrainInfo, RetrainRequest
from service.data.datasets import Datasets
from service.errors import require_model
from service.execution.recipes import ReadRecipes, complete_config
from service.jobs.lessons import require_dataset
from service.jobs.retrain_rows import Kept, News, RetrainRows, RetrainSettings
from service.web.auth import Access, Keyring, caller
from service.web.json_limit import Bounded

ACCESS: Mapping[str, Access] = {
    "GET /models/{model}/retrain": Access("predict", 404, 503),
    "PUT /models/{model}/retrain": Access("train", 400, 403, 404, 413, 415, 422, 503),
}
_PLACE = "/models/{model}/retrain"
Authorization = Annotated[str, Header(include_in_schema=False)]


def router(
    specs: Mapping[str, ModelSpec], rows: RetrainRows, datasets: Datasets, recipes: ReadRecipes, keys: Keyring
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["captures"], route_class=Bounded)

    @routes.get(_PLACE, summary="When a model is retrained on its feedback")
    async def get_settings(model: str) -> RetrainInfo:
        require_model(model, specs)
        return _info(model, *await asyncio.to_thread(rows.of, model))

    @routes.put(_PLACE, summary="Set when a model is retrained on its feedback")
    async def put_settings(
        model: str, body: RetrainRequest, request: Request, authorization: Authorization = ""
    ) -> RetrainInfo:
        """All settings are replaced; those that are left out have their defaults. Corrections that no such job was
        queued for count from the first call on, also earlier ones. Exactly one job is queued for that number.
        """
        require_model(model, specs)
        if body.dataset is not None or body.config:
            known = await recipes()
            complete_config(model, known, body.config)
            if body.dataset is not None:
                await require_dataset(model, body.dataset, known, datasets)
        await asyncio.to_thread(
            rows.set,
            model,
            _settings(body),
            by=caller(request.scope),
            submitter=keys.name(authorization.encode("latin-1")),
            now=time.time(),
        )
        return _info(model, *await asyncio.to_thread(rows.of, model))

    return routes


def _settings(body: RetrainRequest) -> RetrainSettings:
    return RetrainSettings(
        corrections=body.corrections,
        every_s=None if body.every is None else seconds_in(body.every),
        on_drift=body.on_drift,
        at_most_every_s=seconds_in(body.at_most_every),
        weight=body.weight,
        dataset=body.dataset,
        promote=body.promote,
        config=body.config,
    )


def _info(model: str, kept: Kept | None, found: News) -> RetrainInfo:
    settings = RetrainSettings() if kept is None else kept.settings
    return RetrainInfo(
        model=model,
        corrections=settings.corrections,
        every=None if settings.every_s is None else duration_of(settings.every_s),
        on_drift=settings.on_drift,
        at_most_every=duration_of(settings.at_most_every_s),
        weight=settings.weight,
        dataset=settings.dataset,
        promote=settings.promote,
        config=dict(settings.config),
        new_corrections=found.corrections,
        new_feedback=found.entries,
        watermark=0 if kept is None else kept.watermark,
        queued_at=None if kept is None else kept.queued_at,
        job=None if kept is None else kept.job,
        reason=None if kept is None else kept.reason,
        fault=None if kept is None else kept.fault,
    )
