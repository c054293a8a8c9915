"""Errors -> RFC 9457 problem documents. Every error answer of the service is made here."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from models.errors import InvalidInput, MalformedInput, TooManySamples
from service.errors import ServiceError, TooLarge, UnsupportedMediaType
from service.media_types import JSON, plain

MEDIA_TYPE = "application/problem+json"
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
    """One problem document. `type` is about:blank: the title says what HTTP's own status does not.

    Under /v2 the Open Inference Protocol has a shape of its own, and knows no 422.
    """
    if path == "/v2" or path.startswith("/v2/"):
        error = orjson.dumps({"error": f"{title}: {detail}"})
        return Response(error, 400 if status == 422 else status, dict(headers or {}), JSON)
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


def of_service_error(err: ServiceError, path: str = "") -> Response:
    """The document of an error that knows its status."""
    return problem(err.status, err.title, err.detail, err.headers, path)


def of_invalid_input(err: InvalidInput, path: str = "") -> Response:
    """400 for what cannot be read, 413 for too many samples, 422 for what cannot be taken."""
    err.alone()
    status = 400 if isinstance(err, MalformedInput) else TooLarge.status if isinstance(err, TooManySamples) else 422
    return problem(status, err.title, err.detail, path=path)


def internal_error(path: str = "") -> Response:
    """The document of an error that nobody foresaw."""
    return problem(500, "Internal error", "the service failed on this request; its log says why", path=path)


async def unexpected(request: Request, _: Exception) -> Response:
    """The answer to an error that nobody foresaw; the server logs it, with its trace."""
    return internal_error(request.scope["path"])


def install(app: FastAPI) -> None:
    """Register the one handler of each kind of error."""

    async def service_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, ServiceError)
        return of_service_error(err, request.scope["path"])

    async def invalid_input(request: Request, err: Exception) -> Response:
        assert isinstance(err, InvalidInput)
        return of_invalid_input(err, request.scope["path"])

    async def http_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        if err.status_code == 405:  # the router's own Allow knows of one of several routes with this path
            err.headers = {"Allow": ", ".join(_allowed(request))}
        title = HTTPStatus(err.status_code).phrase
        return problem(err.status_code, title, _in_words(request, err), err.headers, request.scope["path"])

    async def gone(_: Request, __: Exception) -> Response:
        return problem(400, "Client gone", "the caller went away before the whole body was there")  # nobody reads it

    async def bad_request(request: Request, err: Exception) -> Response:
        assert isinstance(err, RequestValidationError)
        if any(fault["loc"] == ("body",) for fault in err.errors()) and not _is_json(request):
            return of_service_error(UnsupportedMediaType("send the body as application/json"))
        malformed = any(fault["type"] == "json_invalid" for fault in err.errors())
        faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in err.errors())
        return problem(400 if malformed else 422, "Invalid request", "; ".join(faults))

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(InvalidInput, invalid_input)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, bad_request)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)


def _is_json(request: Request) -> bool:
    """Whether the body says so. A form that a page of another site has a browser post cannot."""
    return plain(request.headers.get("content-type")) == JSON


def _allowed(request: Request) -> list[str]:
    """The methods that this address takes."""

    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("GET", "HEAD", "POST") if taken(method)]


def _in_words(request: Request, err: HTTPException) -> str:
    if err.status_code == 404:
        return "there is nothing at this address; /docs lists what there is"
    if err.status_code == 405:
        allowed = (err.headers or {}).get("Allow", "another method")
        return f"this address does not take {request.method}; it takes {allowed}"
    return str(err.detail)
