"""Cross-origin requests (CORS) by pages of the origins that the operator names."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.settings import ANY

_EXPOSED = (
    "ETag",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Model-Version",
)


def allow_origins(app: ASGIApp, origins: Collection[str]) -> CORSMiddleware:
    """Wrap an application: answer preflight requests, and let scripts of these origins read its answers.

    Every method and header is allowed: the key in Authorization determines the caller's rights.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=ANY not in origins,
        allow_private_network=True,
        expose_headers=_EXPOSED,
    )
