"""Requests of httpx for the calls of a client."""

from typing import Any

import httpx

from service.client import connection
from service.client.call import Call
from service.client.errors import BadArgument, TorchloopError, first_line


def request(
    http: httpx.Client | httpx.AsyncClient, call: Call[Any], timeout: httpx.Timeout | None = None
) -> httpx.Request:
    """Return the request of a call. Raises TorchloopError if the client is closed, BadArgument."""
    if http.is_closed:
        raise TorchloopError("the client is closed: make the call inside its `with` block, or create another client")
    if timeout is None and call.timeout_s is not None:
        timeout = connection.timeout(call.timeout_s)
    own: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    try:
        built = http.build_request(call.method, call.path, **call.arguments, **own)
    except (httpx.InvalidURL, ValueError, TypeError, AttributeError, RecursionError) as err:
        raise BadArgument(f"the arguments of this call cannot be sent ({first_line(err)})") from err
    if call.stream is None:
        return built
    return httpx.Request(
        built.method, built.url, headers=built.headers, stream=call.stream, extensions=built.extensions
    )
