"""Map errors to HTTP responses: RFC 9457 problem documents; under /v2 the shape of the Open Inference Protocol."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from models.errors import InvalidInput, MalformedInput, TooManySamples
from service.errors import NotFound, ServiceError, TooLarge, UnsupportedMediaType
from service.media_types import JSON, plain
from service.web.prefix import route_path

MEDIA_TYPE = "application/problem+json"
NO_SUCH_PATH = "no such path; /docs lists the routes"
_METHODS = {"GET": ("GET", "HEAD"), "POST": ("POST",), "PUT": ("PUT",), "DELETE": ("DELETE",)}
_UNCACHED = {"Cache-Control": "no-store"}
_NO_OBJECT = {"dict_type", "model_type", "model_attributes_type"}  # of pydantic, which calls it a dictionary
_KEPT = 2000  # characters at the start of a detail, and at its end
_CLOSED = {"Connection": "close"}  # the server closes a connection after an error that it did not expect
SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, path: str = "") -> Response:
    """Return one problem document; `type` is about:blank.

    Under /v2 return the error object of the Open Inference Protocol instead, with 400 for 422, which it does not use.
    Lone surrogates of a text that the client sent are escaped: they are not valid in UTF-8. Of a long detail, start and
    end are kept: it repeats what the client sent, and its end names the way out.
    """
    detail = _shortened(detail).encode("utf-8", "backslashreplace").decode()
    if path == "/v2" or path.startswith("/v2/"):
        error = orjson.dumps({"error": f"{title}: {detail}"})
        return Response(error, 400 if status == 422 else status, {**_UNCACHED, **(headers or {})}, JSON)
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(body, status, {**_UNCACHED, **(headers or {})}, MEDIA_TYPE)


def _shortened(detail: str) -> str:
    return detail if len(detail) <= 2 * _KEPT else f"{detail[:_KEPT]} ... {detail[-_KEPT:]}"


def of(err: Exception, path: str = "") -> Response:
    """Return the response to any error raised for a request to `path`.

    Unexpected errors become a 500 without details. They are not logged here: the caller logs them, or raises them so
    that the server does.
    """
    match err:
        case ServiceError():
            return problem(err.status, err.title, err.detail, err.headers, path)
        case InvalidInput():
            err.alone()
            return problem(_status(err), err.title, err.detail, path=path)
        case HTTPException():
            title = HTTPStatus(err.status_code).phrase
            return problem(err.status_code, title, str(err.detail), err.headers, path)
        case RequestValidationError():
            malformed = any(fault["type"] == "json_invalid" for fault in err.errors())
            return problem(400 if malformed else 422, "Invalid request", in_words(err.errors()), path=path)
        case ClientDisconnect():  # the client does not receive it
            return problem(
                400, "Client disconnected", "the connection was closed before the end of the body", path=path
            )
        case _:
            detail = "the service failed on this request; its log says why"
            return problem(500, "Internal error", detail, _CLOSED, path)


def in_words(faults: Sequence[Any]) -> str:
    """Return the faults that pydantic has found in one line, each with the field that it is about."""
    return "; ".join(dict.fromkeys(map(_words, faults)))


def _words(fault: Any) -> str:
    """Return one fault, with its place. Names of pydantic for the members of a union are no part of it."""
    names = [str(part) for part in fault["loc"]]
    place = ".".join(name for name in names if not name.startswith(("(", "function-", "constrained-")))
    return f"{place}: {_text(fault)}" if place else _text(fault)


def _text(fault: Any) -> str:
    if fault["type"] in _NO_OBJECT:
        return "must be a JSON object"
    if fault["type"] == "string_pattern_mismatch":  # a regular expression says little to most readers
        return "has another form than /docs says"
    text: str = fault["msg"].removeprefix("Value error, ")
    return text


def _status(err: InvalidInput) -> int:
    if isinstance(err, MalformedInput):
        return 400
    return TooLarge.status if isinstance(err, TooManySamples) else 422


def install(app: FastAPI) -> None:
    """Register the mapper as the application's exception handler. The server logs unexpected errors."""

    async def handle(request: Request, err: Exception) -> Response:
        return of(_with_context(request, err), route_path(request.scope))

    for kind in (ServiceError, InvalidInput, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)


def _with_context(request: Request, err: Exception) -> Exception:
    """Return the error with the details that follow from the request: allowed methods, and the body's media type."""
    if isinstance(err, HTTPException) and err.status_code == 404:
        return NotFound(NO_SUCH_PATH)
    if isinstance(err, HTTPException) and err.status_code == 405:
        allowed = ", ".join(_allowed(request))  # the router's own Allow covers one of several routes with this path
        detail = f"this path does not support {request.method}, only {allowed}"
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            detail += ". A page of another origin needs TORCHLOOP_CORS_ORIGINS, which lists the origins that may call"
        return HTTPException(405, detail, {"Allow": allowed})
    if isinstance(err, RequestValidationError):
        of_body = any(fault["loc"] == ("body",) for fault in err.errors())
        if of_body and not _is_json(request):
            return UnsupportedMediaType("send the body as application/json")
    return err


def _is_json(request: Request) -> bool:
    """Return whether the body is declared as JSON. A cross-site form cannot declare that."""
    return plain(request.headers.get("content-type")) == JSON


def _allowed(request: Request) -> list[str]:
    """Return the methods that this path supports."""

    def supported(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [name for method, names in _METHODS.items() if supported(method) for name in names]
