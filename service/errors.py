"""What can go wrong, and the HTTP status of each.

ServiceError 500
├── Malformed 400              ├── UnsupportedMediaType 415
├── Unauthorized 401           ├── Misdirected 421
├── Forbidden 403              ├── Invalid 422
├── CrossSite 403              ├── QueueFull 429
├── NotFound 404               ├── NothingLive 503
├── Conflict 409               ├── StoreUnavailable 503
├── TooLarge 413               └── DeadlineExceeded 504

A message names the thing and the way out; it is shown to the caller, so it holds no path and no trace.
"""

from collections.abc import Mapping


class ServiceError(Exception):
    """A request that cannot be answered. `detail` is for the caller."""

    status = 500
    title = "Internal error"

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})


class Malformed(ServiceError):
    """The request cannot be read."""

    status, title = 400, "Malformed request"


class Unauthorized(ServiceError):
    """No key, or an unknown one."""

    status, title = 401, "Key needed"


class Forbidden(ServiceError):
    """The key does not open this."""

    status, title = 403, "Not allowed with this key"


class CrossSite(ServiceError):
    """A page from elsewhere has a browser ask for this."""

    status, title = 403, "Cross-site request"


class NotFound(ServiceError):
    """No such model, version or job."""

    status, title = 404, "Not found"


class Conflict(ServiceError):
    """The state of things forbids it."""

    status, title = 409, "Conflict"


class TooLarge(ServiceError):
    """Body, or number of samples, above the limit."""

    status, title = 413, "Too large"


class UnsupportedMediaType(ServiceError):
    """A body of a kind that this model does not take."""

    status, title = 415, "Unsupported media type"


class Misdirected(ServiceError):
    """Asked for under a name that is not this service's."""

    status, title = 421, "Misdirected request"


class Invalid(ServiceError):
    """Readable, but not valid."""

    status, title = 422, "Invalid request"


class QueueFull(ServiceError):
    """More waits than may wait."""

    status, title = 429, "Queue full"

    def __init__(self) -> None:
        super().__init__("too many requests are waiting already: try again in a second", {"Retry-After": "1"})


class NothingLive(ServiceError):
    """The model has no version that answers."""

    status, title = 503, "Nothing live"


class StoreUnavailable(ServiceError):
    """The database, or the store folder, is out of reach for the moment."""

    status, title = 503, "Store unavailable"


class DeadlineExceeded(ServiceError):
    """The answer would come too late."""

    status, title = 504, "Deadline exceeded"


def require_model(name: str, known: Mapping[str, object]) -> None:
    """Raises NotFound for a model that is not there."""
    if name not in known:
        raise NotFound(f"there is no model {name!r}; there are {', '.join(known)}")
