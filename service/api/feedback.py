"""Feedback over HTTP: truths about answers, and the accuracy that follows from them."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from models.errors import InvalidInput
from models.spec import ModelSpec
from service.api.capture_schemas import (
    AccuracyInfo,
    EntryError,
    FeedbackEntry,
    FeedbackRequest,
    FeedbackResult,
    FeedbackResults,
    TruthForm,
    TruthPart,
    Window,
)
from service.api.captured import truth_infos
from service.api.durations import seconds_of_window
from service.api.schemas import WholeNumber
from service.api.truth_forms import TruthForms
from service.data.accuracy import measured
from service.data.feedback import AlreadyTold, Entry, Feedback, Matched
from service.data.said import Form, Part, checked
from service.delivery.registry import Registry
from service.errors import Forbidden, Invalid, ServiceError, require_model
from service.execution.recipes import unstorable
from service.store.database import Store
from service.web.auth import Access, caller
from service.web.json_limit import Bounded
from service.web.problems import in_words

ACCESS: Mapping[str, Access] = {
    "POST /models/{model}/feedback": Access("predict", 400, 403, 404, 413, 415, 422, 503),
    "GET /models/{model}/feedback": Access("predict", 404, 503),
    "GET /models/{model}/versions/{version}/accuracy": Access("predict", 404, 422, 503),
}


def router(
    specs: Mapping[str, ModelSpec], forms: TruthForms, feedback: Feedback, registry: Registry, store: Store
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["captures"], route_class=Bounded)

    @routes.post(
        "/models/{model}/feedback",
        summary="Tell truths about answers",
        openapi_extra={"x-feedback-entry": FeedbackEntry.model_json_schema()},
    )
    async def add(model: str, body: FeedbackRequest, request: Request) -> FeedbackResults:
        """1 to 1,000 entries, each accepted or refused alone; the entries of one answer may come before it is written.
        A later entry of the same kind replaces the earlier one. Audits need a key of scope train.
        """
        require_model(model, specs)
        form, by = await forms.of(model, specs[model]), caller(request.scope)
        read = [_read(entry, form, by) for entry in body.feedback]
        good = [entry for entry in read if isinstance(entry, Entry)]
        matched = iter(await asyncio.to_thread(feedback.add, model, good, time.time()))
        return FeedbackResults(results=[_result(next(matched) if isinstance(one, Entry) else one) for one in read])

    @routes.get("/models/{model}/feedback", summary="What a truth is")
    async def truth_form(model: str) -> TruthForm:
        """The outputs of the model that truths can be reported for, with their labels."""
        require_model(model, specs)
        form = await forms.of(model, specs[model])
        return TruthForm(model=model, outputs=[_part(name, part) for name, part in form.items()])

    @routes.get("/models/{model}/versions/{version}/accuracy", summary="How right a version was")
    async def accuracy(model: str, version: WholeNumber, window: Window = "1d") -> AccuracyInfo:
        """By random audits and by outcomes of captured answers. Corrections are counted apart, since wrong answers are
        reported more often than right ones.
        """
        require_model(model, specs)
        found = await asyncio.to_thread(registry.version, model, version)
        end = time.time()
        begin = end - seconds_of_window(window)

        def measure() -> AccuracyInfo:
            with store.read() as connection:
                figures = measured(connection, model, version, begin, end, found.record.get("metrics", {}))
            return AccuracyInfo(model=model, version=version, window=window, **asdict(figures))

        return await asyncio.to_thread(measure)

    return routes


def _read(given: Any, form: Form, by: str) -> Entry | ServiceError | InvalidInput:
    """Return an entry in its stored form, or why it is refused."""
    try:
        entry = FeedbackEntry.model_validate(given)
        if (entry.id is None) == (entry.key is None):
            return Invalid("give one of id and key: the answer's id, or the X-Prediction-Key that was sent with it")
        if entry.kind == "audit" and by == "predict":
            return Forbidden("audits need a key of scope train: they decide about the accuracy of a version")
        if fault := unstorable(entry.truth):
            return Invalid(f"truth: {fault}")
        truth = checked(entry.truth, form)
    except ValidationError as err:
        return Invalid(in_words(err.errors()))
    except InvalidInput as err:
        return err.alone()
    return Entry(
        id=entry.id,
        key=entry.key,
        position=entry.index,
        truth=truth,
        kind=entry.kind,
        drawn=entry.order,
        by=entry.by or by,
        replace=entry.replace,
    )


def _part(name: str, part: Part) -> TruthPart:
    labels = None if part.labels is None else list(part.labels)
    return TruthPart(name=name, kind=part.kind, labels=labels, shape=list(part.shape))


def _result(found: Matched | ServiceError | InvalidInput) -> FeedbackResult:
    if isinstance(found, str):
        return FeedbackResult(accepted=True, matched=found)
    current = truth_infos([found.current])[0] if isinstance(found, AlreadyTold) else None
    return FeedbackResult(accepted=False, error=EntryError(title=found.title, detail=found.detail), current=current)
