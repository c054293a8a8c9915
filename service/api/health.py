"""Health and metrics: liveness, readiness, Prometheus."""

from collections.abc import Mapping

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from service.api.schemas import Health
from service.delivery.rollout import Rollout
from service.store.database import Store
from service.telemetry.metrics import Metrics
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /health/live": Access(None),
    "GET /health/ready": Access(None),
    "GET /metrics": Access("predict"),
}


def router(models: Mapping[str, object], rollout: Rollout, metrics: Metrics, store: Store) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health/live", summary="The process runs")
    async def live() -> Health:
        return Health(status="live")

    @routes.get(
        "/health/ready",
        summary="Every model with a live version is loaded and warm",
        responses={503: {"model": Health, "description": "not ready; `reasons` says why"}},
    )
    async def ready(response: Response) -> Health:
        waiting = [name for name in models if name not in {*rollout.live, *rollout.faults}]
        reasons, faults = rollout.not_ready, {str(part): fault for part, fault in store.faults.items()}
        response.status_code = 503 if reasons else 200
        status = "not ready" if reasons else "ready"
        return Health(status=status, reasons=reasons, without_live_version=waiting, store=faults)

    @routes.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def prometheus() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_PLAIN_1_0_0)

    return routes
