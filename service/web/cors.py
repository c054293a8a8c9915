"""Cross-origin requests (CORS) by pages of the origins that the operator names."""

from collections.abc import Collection, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.errors import shown
from service.settings import ANY
from service.web import problems
from service.web.prefix import route_path

SETTING = "TORCHLOOP_CORS_ORIGINS"
_REFUSED = 400
_EXPOSED = (
    "ETag",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "Upload-Offset",
    "WWW-Authenticate",
    "X-Model-Version",
    "X-Prediction-Id",
)


def allow_origins(app: ASGIApp, origins: Collection[str]) -> "Cors":
    """Wrap an application: answer preflight requests, and let scripts of these origins read its answers.

    Every method and header is allowed: the key in Authorization determines the caller's rights.
    """
    return Cors(
        _Failures(app),
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=ANY not in origins,
        allow_private_network=True,
        expose_headers=_EXPOSED,
    )


def refusal_headers(origins: Collection[str], headers: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Return the CORS headers of a refusal that does not pass through the application, such as 408 and 431.

    None if the request has no Origin, or one that is not allowed.
    """
    origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None) if origins else None
    if origin is None or not (ANY in origins or origin in origins):
        return {}
    exposed = {"Access-Control-Expose-Headers": ", ".join(_EXPOSED)}
    if ANY in origins:
        return {"Access-Control-Allow-Origin": ANY, **exposed}
    allowed = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
    return allowed | exposed


class Cors(CORSMiddleware):
    """Starlette's middleware, with problem documents as refusals."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code != _REFUSED:
            return answer
        origin, method = request_headers["origin"][:200], request_headers["access-control-request-method"][:40]
        detail = (
            f"requests with the method {shown(method)!r} are not allowed from other origins"
            if self.is_allowed_origin(origin)
            else f"pages of the origin {shown(origin)!r} may not call this service: {SETTING} lists those that may"
        )
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return problems.problem(_REFUSED, "Preflight refused", detail, headers)


class _Failures:
    """ASGI middleware: answers an unexpected error with 500 inside the CORS layer, so that scripts can read it.

    The error is raised again for the server, which logs it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as err:
            if not started:
                await problems.of(err, route_path(scope))(scope, receive, send)
            raise
