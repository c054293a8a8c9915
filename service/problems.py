"""Errors -> RFC 9457 problem documents. Every error answer of the service is made here."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from models.inputs import TooManySamples
from models.spec import InvalidInput, MalformedInput
from service.errors import ServiceError, TooLarge

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


def problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """One problem document. `type` is about:blank: the title says what HTTP's own status does not."""
    body = orjson.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(body, status, dict(headers or {}), MEDIA_TYPE)


def of_service_error(err: ServiceError) -> Response:
    """The document of an error that knows its status."""
    return problem(err.status, err.title, err.detail, err.headers)


def of_invalid_input(err: InvalidInput) -> Response:
    """400 for what cannot be read, 413 for too many samples, 422 for what cannot be taken."""
    status = 400 if isinstance(err, MalformedInput) else TooLarge.status if isinstance(err, TooManySamples) else 422
    return problem(status, err.title, err.detail)


def failed(err: InvalidInput) -> dict[str, Any]:
    """What stands in the place of one sample that failed, in an answer to several."""
    return {"error": {"title": err.title, "detail": err.detail}}


async def unexpected(_: Request, __: Exception) -> Response:
    """The answer to an error that nobody foresaw; the server logs it, with its trace."""
    return problem(500, "Internal error", "the service failed on this request; its log says why")


def install(app: FastAPI) -> None:
    """Register the one handler of each kind of error."""

    async def service_error(_: Request, err: Exception) -> Response:
        assert isinstance(err, ServiceError)
        return of_service_error(err)

    async def invalid_input(_: Request, err: Exception) -> Response:
        assert isinstance(err, InvalidInput)
        return of_invalid_input(err)

    async def http_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        return problem(err.status_code, HTTPStatus(err.status_code).phrase, _in_words(request, err), err.headers)

    async def gone(_: Request, __: Exception) -> Response:
        return problem(400, "Client gone", "the caller went away before the whole body was there")  # nobody reads it

    async def bad_request(_: Request, err: Exception) -> Response:
        assert isinstance(err, RequestValidationError)
        malformed = any(fault["type"] == "json_invalid" for fault in err.errors())
        faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in err.errors())
        return problem(400 if malformed else 422, "Invalid request", "; ".join(faults))

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(InvalidInput, invalid_input)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, bad_request)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)


def _in_words(request: Request, err: HTTPException) -> str:
    if err.status_code == 404:
        return "there is nothing at this address; /docs lists what there is"
    if err.status_code == 405:
        allowed = (err.headers or {}).get("Allow", "another method")
        return f"this address does not take {request.method}; it takes {allowed}"
    return str(err.detail)
