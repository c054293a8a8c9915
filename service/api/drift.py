"""GET /models/{model}/drift: recent inputs and answers of a version, compared with its training and validation data."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from models.spec import ModelSpec
from service.api.durations import seconds_of_window
from service.api.schemas import Time
from service.api.written import Form
from service.data.drift import Drift, Finding, Half, State, drift_of
from service.data.drift_psi import FLOOR, LEAST
from service.data.drift_rows import MINUTE_S, DriftRows
from service.delivery.registry import Registry
from service.errors import Conflict, NotFound, require_model
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {"GET /models/{model}/drift": Access("predict", 404, 409, 422, 503)}

Which = Annotated[
    str,
    Form(r"^(live|[1-9][0-9]{0,8})$", "must be live, or the number of a version"),
    Query(description='number of a version; "live" is the live one'),
]
Window = Annotated[
    str,
    Form(
        r"^([1-9][0-9]{0,3}m|([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h|([1-9]|[12][0-9]|30)d)$",
        "write minutes, hours or days, as 30m, 1h or 7d; at most 9999m, 720h or 30d",
    ),
    Query(
        description="minutes, hours or days until now: 30m, 1h, 7d; at most 30 days",
    ),
]


class DriftBin(BaseModel):
    """One bin of a distribution, and its share of the samples in the reference and in the window."""

    name: str = Field(description="its bounds in words, or the label")
    low: float | None = Field(description="lower bound; null: none, or a label")
    high: float | None = Field(description="upper bound; null: none, or a label")
    reference: float
    window: float


class HalfInfo(BaseModel):
    """One half of the window: the earlier or the later half of its samples, by whole minutes."""

    samples: int
    psi: float
    limit: float | None = Field(description="exceeded by chance in one of twenty; null: the half is empty")


class FeatureDrift(BaseModel):
    """One feature, or one answer, of a version."""

    name: str
    kind: Literal["feature", "answer"]
    drifted: bool = Field(description="psi is above limit, and in both halves of the window, too")
    samples: int = Field(description="samples in the window")
    reference_samples: int = Field(description="of the training split; of an answer, of the validation split")
    psi: float = Field(description="population stability index of the window against the reference")
    limit: float | None = Field(
        description="exceeded by chance in one of a thousand windows of that size, over all features, and at least "
        f"{FLOOR:g}; null: the window is empty"
    )
    halves: list[HalfInfo]
    bins: list[DriftBin]


class Confidence(BaseModel):
    """Mean probability of the answered labels."""

    reference: float
    window: float | None = Field(description="null: the window is empty")


class DriftInfo(BaseModel):
    """Drift of one version in a window. Counted are at most a hundred requests a second of each web process."""

    model: str
    version: int
    window: str
    since: Time
    until: Time
    state: State = Field(
        description="drift: some feature or answer has drifted; suspected: not in both halves of the window yet; too "
        f"few samples: fewer than {LEAST} in each half"
    )
    samples: int = Field(description="samples that were counted in the window")
    features: list[FeatureDrift]
    confidence: Confidence | None = Field(description="null: the answers have no labels")


def router(specs: Mapping[str, ModelSpec], registry: Registry, rows: DriftRows, now: Callable[[], float]) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/models/{model}/drift", summary="Drift of a version")
    async def drift(model: str, version: Which = "live", window: Window = "1h") -> DriftInfo:
        """Compares the features of the samples, and the answers, of the last minutes, hours or days with the
        distributions that the version had in its training and validation split (population stability index).

        A minute is counted once it has ended. A version without these distributions is a 409 that says why.
        """
        require_model(model, specs)
        number, found = await asyncio.to_thread(
            _found, registry, rows, model, version, seconds_of_window(window), now()
        )
        return _info(model, number, window, found)

    return routes


def _found(
    registry: Registry, rows: DriftRows, model: str, version: str, window_s: float, now: float
) -> tuple[int, Drift]:
    number = registry.live_version(model) if version == "live" else int(version)
    if number is None:
        raise NotFound(f"{model} has no live version: promote one, or name another by ?version=")
    try:
        return number, drift_of(rows, model, number, window_s, now)
    except ValueError as err:
        raise Conflict(
            f"version {number} of {model} has nothing that drift could be measured against: {err}. Train it again, or "
            "upload its checkpoint again while its dataset is available"
        ) from err


def _info(model: str, version: int, window: str, found: Drift) -> DriftInfo:
    mean = found.reference.confidence
    return DriftInfo(
        model=model,
        version=version,
        window=window,
        since=found.begin * MINUTE_S,
        until=found.end * MINUTE_S,
        state=found.state,
        samples=found.counts.samples,
        features=[_feature(one) for one in found.findings],
        confidence=None if mean is None else Confidence(reference=mean, window=found.confidence),
    )


def _feature(found: Finding) -> FeatureDrift:
    one, window = found.distribution, found.window.tolist()
    n, m = sum(window), sum(one.counts)
    bins = [
        DriftBin(name=name, low=low, high=high, reference=reference / max(1, m), window=count / max(1, n))
        for (name, low, high), reference, count in zip(one.bins(), one.counts, window, strict=True)
    ]
    return FeatureDrift(
        name=one.name,
        kind=one.kind,
        drifted=found.has_drifted,
        samples=n,
        reference_samples=m,
        psi=found.psi,
        limit=found.limit if n else None,
        halves=[_half(half) for half in found.halves],
        bins=bins,
    )


def _half(half: Half) -> HalfInfo:
    return HalfInfo(samples=half.samples, psi=half.psi, limit=half.limit if half.samples else None)
