"""A FastAPI route class that limits JSON bodies. (Starlette's own limit answers in plain text.)"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from service.web.bodies import content_coding, read_body
from service.web.compression import inflate

MAX_JSON_BYTES = 1_048_576


class Bounded(APIRoute):
    """Reads at most MAX_JSON_BYTES of the body of a POST or PUT, compressed or not.

    Raises TooLarge before the rest is read.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return FastAPI's handler, wrapped to receive the body that was read."""
        handle: Callable[[Request], Awaitable[Any]] = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if request.method in {"POST", "PUT"}:
                coding = content_coding(request.scope)
                body = await read_body(request.scope, request.receive, MAX_JSON_BYTES)
                if coding is not None:
                    body = inflate(body, coding, MAX_JSON_BYTES)
                rest = request.receive
                messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

                async def again() -> Message:
                    return messages.pop() if messages else await rest()

                request = Request(request.scope, again)
            response: Response = await handle(request)
            return response

        return bounded
