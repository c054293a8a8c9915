"""Errors of calls.

TorchloopError
├── BadArgument                    nothing was sent
├── Unreachable                    no answer
├── NotTorchloop                   an answer of another server
└── Refused                        an answer with an error status
    ├── Malformed 400              ├── TooLarge 413
    ├── Unauthorized 401           ├── UnsupportedMediaType 415
    ├── Forbidden 403              ├── Invalid 422
    ├── NotFound 404               ├── Overloaded 429
    ├── Conflict 409               ├── Unavailable 503
    └── ServiceFailed, other 5xx   └── Late 504
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

_LONGEST = 300  # characters of another library's message
_KEPT = 2200  # characters at the start of a message, and at its end: more than the service writes


class TorchloopError(Exception):
    """A call that failed. The message says what to do; of a long one, start and end are kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 2 * _KEPT else f"{message[:_KEPT]} ... {message[-_KEPT:]}")


class BadArgument(TorchloopError):
    """An argument that cannot be used, such as a missing file: nothing was sent. Or the model has no such answer."""


class Unreachable(TorchloopError):
    """No server answers at the URL, or it stopped answering."""

    def __init__(self, url: str, reason: str, way_out: str = "") -> None:
        start = "start the service (make serve, or python -m service), or name another one by --url or TORCHLOOP_URL"
        super().__init__(f"no answer from {url} ({reason}): {way_out or start}")


class NotTorchloop(TorchloopError):
    """An answer that is not one of the service: the URL is wrong, or a proxy or login page answered."""


class Refused(TorchloopError):
    """The service answered with an error: its `status`, and the `title` and `detail` of its problem document."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(f"{title}: {detail}" if detail else title)
        self.status = status
        self.title = title
        self.detail = detail


class Malformed(Refused):
    """400: the request cannot be parsed."""


class Unauthorized(Refused):
    """401: the key is missing or unknown."""


class Forbidden(Refused):
    """403: the key's scope does not allow the request."""


class NotFound(Refused):
    """404: unknown model, version or job."""


class Conflict(Refused):
    """409: the request conflicts with the current state."""


class TooLarge(Refused):
    """413: too many bytes or samples."""


class UnsupportedMediaType(Refused):
    """415: the model does not accept this type of body."""


class Invalid(Refused):
    """422: the request can be parsed, but is not valid."""


class Overloaded(Refused):
    """429, after the retries: the queue is full."""


class Unavailable(Refused):
    """503: no live version, or the store is unavailable."""


class Late(Refused):
    """504: the answer would have come after the deadline."""


class ServiceFailed(Refused):
    """Any other 5xx; the service's log has the reason."""


_CLASSES: Mapping[int, type[Refused]] = {
    400: Malformed,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMediaType,
    422: Invalid,
    429: Overloaded,
    503: Unavailable,
    504: Late,
}


def refusal(response: httpx.Response, way_out: str = "") -> Refused:
    """Return the error for a response with an error status; `way_out` is used if the service did not write it."""
    kind = _CLASSES.get(response.status_code, ServiceFailed if response.status_code >= 500 else Refused)
    title, detail = f"status {response.status_code} {response.reason_phrase}".strip(), way_out
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(ValueError, AttributeError):  # truncated: only the status is known
            document: dict[str, Any] = response.json()
            title, detail = str(document.get("title", title)), str(document.get("detail", ""))
    return kind(response.status_code, title, detail)


def first_line(err: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return next(iter(str(err).splitlines()), "")[:_LONGEST] or type(err).__name__
