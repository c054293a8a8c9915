"""Access rules of all routes, collected from the modules that declare them."""

from collections.abc import Mapping

from service.api import (
    dataset_uploads,
    datasets,
    explain,
    health,
    jobs,
    models,
    nodes,
    page,
    predict,
    preview,
    thumbnails,
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
    **jobs.ACCESS,
    **datasets.ACCESS,
    **dataset_uploads.ACCESS,
    **thumbnails.ACCESS,
    **nodes.ACCESS,
    **health.ACCESS,
    **page.ACCESS,
    **metadata.ACCESS,
    **infer.ACCESS,
    **repository.ACCESS,
}
TABLE = AccessTable(RULES)
