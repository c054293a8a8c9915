"""Scopes and documented error statuses of every route."""

from collections.abc import Mapping

from service.settings import Scope

WHY = {
    "400": "the request cannot be read",
    "401": "a key is needed",
    "403": "the key does not open this, or a page of another site asks",
    "404": "no such model, version or job",
    "409": "the state of things forbids it",
    "413": "too many bytes or samples",
    "415": "a body of a kind that is not taken here",
    "421": "without keys, Host is to be a name of this machine",
    "422": "readable, but not valid",
    "429": "the queue is full: try again after Retry-After seconds",
    "503": "nothing is live, or the store is out of reach",
    "504": "the answer would come too late",
}


PROBLEMS = {  # the operations, as "METHOD path", that may answer with a problem of these statuses
    r".*\{.*|POST /(train|predict/.*|explain/.*)": ["404"],
    r"POST .*": ["403"],
    r"POST (/train|.*/promote)": ["400", "413", "415", "422"],
    r"POST /preview/.*": ["400", "413", "415", "422"],
    r"POST .*/versions": ["413"],
    r"POST .*/(promote|rollback|cancel)": ["409"],
    r"POST /(predict|explain)/.*": ["400", "409", "413", "415", "422", "429", "504"],
    r".* /(predict|explain|train|jobs|models/.*/).*": ["503"],
}


# The least scope that opens each route; None for public ones. A test holds this against the routes that there are.
RULES: Mapping[str, Scope | None] = {
    "POST /predict/{model}": "predict",
    "POST /preview/{model}": "predict",
    "POST /explain/{model}": "predict",
    "GET /models": "predict",
    "GET /models/{model}": "predict",
    "GET /models/{model}/versions": "predict",
    "GET /models/{model}/versions/{version}": "predict",
    "GET /models/{model}/versions/{version}/checkpoint": "predict",
    "GET /models/{model}/promotions": "predict",
    "GET /jobs": "predict",
    "GET /jobs/{job_id}": "predict",
    "GET /jobs/{job_id}/history": "predict",
    "GET /jobs/{job_id}/events": "predict",
    "GET /jobs/{job_id}/plot.png": "predict",
    "GET /metrics": "predict",
    "GET /openapi.json": "predict",
    "GET /docs": "predict",
    "GET /docs/oauth2-redirect": "predict",
    "GET /static-offline-docs/{path:path}": "predict",
    "POST /train": "train",
    "POST /jobs/{job_id}/cancel": "train",
    "POST /models/{model}/versions": "admin",
    "POST /models/{model}/promote": "admin",
    "POST /models/{model}/rollback": "admin",
    "GET /v2": "predict",
    "GET /v2/": "predict",
    "GET /v2/models/stats": "predict",
    "GET /v2/models/{model}": "predict",
    "GET /v2/models/{model}/ready": "predict",
    "GET /v2/models/{model}/config": "predict",
    "GET /v2/models/{model}/stats": "predict",
    "GET /v2/models/{model}/versions/{version}": "predict",
    "GET /v2/models/{model}/versions/{version}/ready": "predict",
    "GET /v2/models/{model}/versions/{version}/config": "predict",
    "GET /v2/models/{model}/versions/{version}/stats": "predict",
    "POST /v2/models/{model}/infer": "predict",
    "POST /v2/models/{model}/versions/{version}/infer": "predict",
    "POST /v2/repository/index": "predict",
    "POST /v2/repository/models/{model}/load": "admin",
    "POST /v2/repository/models/{model}/unload": "admin",
    "GET /v2/health/live": None,
    "GET /v2/health/ready": None,
    "GET /": None,  # the page's own files: they hold no data
    "GET /page/{name}": None,
    "GET /health/live": None,
    "GET /health/ready": None,
}
