"""Errors with an HTTP status.

ServiceError 500
├── Malformed 400              ├── Misdirected 421
├── Unauthorized 401           ├── Invalid 422
├── Forbidden 403              ├── QueueFull 429
├── CrossSite 403              ├── LimitReached 429
├── NotFound 404               ├── NothingLive 503
├── Conflict 409               ├── StillLoading 503
├── PreconditionFailed 412     ├── ModelFault 503
├── TooLarge 413               ├── StoreUnavailable 503
└── UnsupportedMediaType 415   └── DeadlineExceeded 504

A message names the problem and the way out. Clients see it, so it contains no path and no trace.
"""

from collections.abc import Mapping

from models.catalog import Specs
from models.errors import ObjectsUnavailable, shown


class ServiceError(Exception):
    """A request that cannot be answered. Clients see `detail`."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})


class Malformed(ServiceError):
    """The request cannot be parsed."""

    status, title = 400, "Malformed request"


class Unauthorized(ServiceError):
    """The key is missing or unknown."""

    status, title = 401, "Key needed"


class Forbidden(ServiceError):
    """The key's scope does not allow the request."""

    status, title = 403, "Not allowed with this key"


class CrossSite(ServiceError):
    """The request was sent by a browser for a page of another site (CSRF)."""

    status, title = 403, "Cross-site request"


class NotFound(ServiceError):
    """There is no such model, version or job."""

    status, title = 404, "Not found"


class Conflict(ServiceError):
    """The request conflicts with the current state."""

    status, title = 409, "Conflict"


class PreconditionFailed(ServiceError):
    """The live version is not the one that the caller expects."""

    status, title = 412, "Precondition failed"


class TooLarge(ServiceError):
    """The body, or the number of samples, is above the limit."""

    status, title = 413, "Too large"


class UnsupportedMediaType(ServiceError):
    """The model does not accept this type of body."""

    status, title = 415, "Unsupported media type"


class Misdirected(ServiceError):
    """The Host header names another service (DNS rebinding)."""

    status, title = 421, "Misdirected request"


class Invalid(ServiceError):
    """The request can be parsed, but is not valid."""

    status, title = 422, "Invalid request"


class QueueFull(ServiceError):
    """The queue is full."""

    status, title = 429, "Queue full"

    def __init__(self) -> None:
        super().__init__("too many requests are waiting already: try again in a second", {"Retry-After": "1"})


class LimitReached(ServiceError):
    """As many streams or queued jobs as the service allows."""

    status, title = 429, "Limit reached"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail, {"Retry-After": str(retry_after_s)})


class NothingLive(ServiceError):
    """The model has no live version."""

    status, title = 503, "Nothing live"


class StillLoading(ServiceError):
    """The live version of the model is being loaded."""

    status, title = 503, "Still loading"

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is being loaded: try again in two seconds", {"Retry-After": "2"})


class ModelFault(ServiceError):
    """The file of the model cannot be used."""

    status, title = 503, "Model fault"


class StoreUnavailable(ServiceError):
    """The database or the store folder cannot be reached for now."""

    status, title = 503, "Store unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, {"Retry-After": "2"})


class ObjectsAway(StoreUnavailable, ObjectsUnavailable):
    """The object store cannot be reached or used for now. `why` is for logs, see ObjectsUnavailable."""

    def __init__(self, detail: str, why: str = "") -> None:
        super().__init__(detail)
        self.why = why


class DeadlineExceeded(ServiceError):
    """The answer would come after the deadline. `is_blocked`: another model or version had the device meanwhile."""

    status, title = 504, "Deadline exceeded"

    def __init__(self, detail: str, *, is_blocked: bool = False) -> None:
        super().__init__(detail)
        self.is_blocked = is_blocked


def require_model(name: str, known: Mapping[str, object]) -> None:
    """Raise NotFound for an unknown model name, ModelFault for a model that was left aside."""
    if name in known:
        return
    if isinstance(known, Specs) and name in known.faults:
        raise ModelFault(
            f"{name} cannot serve until its file is corrected and the service restarted: {known.faults[name]}"
        )
    raise NotFound(f"unknown model {shown(name)!r}; known are {', '.join(known)}")
