"""Access rules of all routes, collected from the modules that declare them."""

from collections.abc import Mapping

from service.api import (
    captures,
    changes,
    dataset_uploads,
    datasets,
    drift,
    explain,
    feedback,
    health,
    jobs,
    models,
    nodes,
    page,
    predict,
    preview,
    replay,
    retrain,
    thumbnails,
    trials,
    versions,
)
from service.api.openinference import infer, metadata, repository
from service.web.auth import Access, AccessTable

_DOCUMENTATION = {
    "GET /openapi.json": Access("predict"),
    "GET /docs": Access("predict"),
    "GET /static-offline-docs/{path:path}": Access("predict"),
}
# A test holds this table against the routes of the application.
RULES: Mapping[str, Access] = {
    **_DOCUMENTATION,
    **predict.ACCESS,
    **preview.ACCESS,
    **explain.ACCESS,
    **models.ACCESS,
    **versions.ACCESS,
    **trials.ACCESS,
    **jobs.ACCESS,
    **datasets.ACCESS,
    **dataset_uploads.ACCESS,
    **thumbnails.ACCESS,
    **captures.ACCESS,
    **feedback.ACCESS,
    **replay.ACCESS,
    **retrain.ACCESS,
    **nodes.ACCESS,
    **drift.ACCESS,
    **changes.ACCESS,
    **health.ACCESS,
    **page.ACCESS,
    **metadata.ACCESS,
    **infer.ACCESS,
    **repository.ACCESS,
}
TABLE = AccessTable(RULES)
