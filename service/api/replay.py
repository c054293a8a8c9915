"""Captured content of a prediction, and its replay: computed again by the version that answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter

from models.checkpoints.code import code_digest
from models.errors import InvalidInput
from models.packed_rows import unpacked_row
from models.samples import Batch, Columns, resized
from models.spec import ModelSpec
from service.api.capture_schemas import (
    BackendInfo,
    CapturedSample,
    PredictionId,
    PredictionInfo,
    ReplayedForms,
    ReplayedSample,
    ReplayInfo,
)
from service.api.captured import inputs_of, picture_of, shown_answer, shown_said, truth_infos
from service.data.capture_rows import entry_of, values_of
from service.data.captures import Capture, Captures
from service.data.feedback import Feedback
from service.data.missing import why_missing
from service.data.said import label_text, said_of
from service.delivery.registry import Registry, Version
from service.errors import Conflict, NotFound, require_model
from service.inference.backends.forms import AnyForm
from service.inference.decoding import Samples
from service.inference.engine import Loaded
from service.inference.pipeline import Lane, Pipeline, Stopwatch
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /predictions/{prediction}": Access("train", 403, 404, 422, 503),
    "POST /predictions/{prediction}/replay": Access("train", 400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
}
Pinned = Callable[[str, int], Awaitable[Loaded]]


def router(
    specs: Mapping[str, ModelSpec],
    captures: Captures,
    feedback: Feedback,
    registry: Registry,
    pipeline: Pipeline,
    pinned: Pinned,
) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["captures"])

    async def found(prediction: str) -> Sequence[Capture]:
        rows = await asyncio.to_thread(captures.of_prediction, prediction)
        if not rows:
            raise NotFound(why_missing(prediction, await asyncio.to_thread(captures.settings), time.time()))
        require_model(rows[0].model, specs)
        return rows

    @routes.get("/predictions/{prediction}", summary="What was captured of a prediction")
    async def get(prediction: PredictionId) -> PredictionInfo:
        """The version that answered, its origin, inputs and answers. If nothing was captured, 404 says why."""
        rows = await found(prediction)
        entries = await asyncio.to_thread(feedback.history, [prediction])
        version = await _registered(registry, rows[0])
        return _info(rows, version, {place: told for (_, place), told in entries.items()})

    @routes.post("/predictions/{prediction}/replay", summary="Compute a captured prediction again")
    async def replay(prediction: PredictionId) -> ReplayInfo:
        """By the same version, with the backend that it has now, and in the numeric form that answered if this process
        uses it: `backend` and `form` say so. Answers that were computed in a batch with others may differ in their last
        bits, those in another form in more. Changed code of the model is named.
        """
        rows = [row for row in await found(prediction) if row.content is not None]
        if not rows:
            raise NotFound(f"the captured samples of prediction {prediction} were erased or pruned")
        model, number = rows[0].model, rows[0].version
        loaded = await pinned(model, number)
        samples, watch = await asyncio.to_thread(_samples, loaded, rows), Stopwatch()

        async def decode() -> Samples:
            return samples

        _, answer = await pipeline.predict(Lane(model, loaded), decode, watch)
        form = loaded.network.form_of(answer.batch_size, watch.arrived)
        code = await asyncio.to_thread(code_digest, model, specs[model])
        return _replayed(rows, loaded, answer.values[: len(rows)], form, same_code=code == rows[0].code)

    return routes


async def _registered(registry: Registry, row: Capture) -> Version | None:
    """Return the version that answered; None if it is pruned."""
    try:
        return await asyncio.to_thread(registry.version, row.model, row.version)
    except NotFound:
        return None


def _info(
    rows: Sequence[Capture], version: Version | None, entries: Mapping[int, Sequence[Mapping[str, Any]]]
) -> PredictionInfo:
    first, record = rows[0], {} if version is None else version.record
    return PredictionInfo(
        id=first.id,
        model=first.model,
        version=first.version,
        at=first.at,
        key=first.key,
        media_type=first.media_type,
        backend=first.backend,
        form=first.form,
        code=first.code,
        sha256=record.get("sha256"),
        dataset=record.get("dataset") or None,
        dataset_sha256=record.get("dataset_sha256") or None,
        job=None if version is None else version.job,
        samples=[
            CapturedSample(
                index=row.position,
                inputs=inputs_of(row),
                answer=shown_answer(row),
                said=shown_said(row),
                picture=picture_of(row),
                original=row.original is not None,
                erased_at=row.erased_at,
                pruned_at=row.pruned_at,
                feedback=truth_infos(entries.get(row.position, ())),
            )
            for row in rows
        ],
    )


def _samples(loaded: Loaded, rows: Sequence[Capture]) -> Samples:
    """Prepare captured samples for the network again, repeated until there are as many as it computes in the form that
    answered. Raises Conflict if the model's code takes them no more.
    """
    entries = [entry_of(row.content) for row in rows if row.content is not None]
    try:
        if loaded.coder is not None:
            good: Batch = Columns.of([loaded.coder(entry) for entry in entries])
        else:
            good = loaded.spec.preprocess(np.stack(entries))
    except (InvalidInput, ValueError, TypeError, LookupError) as err:
        text = f"the code of {loaded.model} has changed since, and does not take the captured samples: {err}"
        raise Conflict(text) from err
    least = 1 if loaded.network.switched is None else loaded.network.switched.least_of(rows[0].form)
    good = good if len(good) >= least else resized(good, least)
    return Samples(good, {}, len(good), [])


def _replayed(
    rows: Sequence[Capture], loaded: Loaded, values: Batch, form: AnyForm | None, *, same_code: bool
) -> ReplayInfo:
    predictions = loaded.describe(values)
    samples = []
    for place, row in enumerate(rows):
        assert row.answer is not None
        same, difference = _compared(unpacked_row(row.answer), values_of(values, place))
        samples.append(
            ReplayedSample(
                index=row.position,
                same=same,
                greatest_difference=difference,
                same_label=_same_label(row.said or {}, said_of(loaded.spec, predictions[place])),
            )
        )
    differences = [one.greatest_difference for one in samples]
    first = rows[0]
    return ReplayInfo(
        id=first.id,
        model=first.model,
        version=first.version,
        same=all(one.same for one in samples),
        greatest_difference=None if None in differences else max(one for one in differences if one is not None),
        backend=BackendInfo(then=first.backend, now=loaded.network.backend),
        form=ReplayedForms(then=first.form, now=form),
        same_code=same_code,
        samples=samples,
    )


def _compared(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[bool, float | None]:
    """Return whether two answers are the same to the bit, and their greatest difference; None for other shapes."""
    same, greatest = then.keys() == now.keys(), 0.0
    for name in then.keys() & now.keys():
        before, after = np.asarray(then[name]), now[name]
        if before.shape != after.shape:
            return False, None
        same &= before.dtype == after.dtype and before.tobytes() == after.tobytes()
        gaps = np.abs(before.astype(np.float64) - after.astype(np.float64))
        greatest = max(greatest, float(gaps.max(initial=0)))
    return bool(same), greatest if then.keys() == now.keys() and np.isfinite(greatest) else None


def _same_label(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> bool | None:
    labels = [(part["label"], now.get(name, {}).get("label")) for name, part in then.items() if "label" in part]
    return all(label_text(before) == label_text(after) for before, after in labels) if labels else None
