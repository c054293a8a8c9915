"""Media types of request and response bodies."""

JSON = "application/json"


NPY = "application/x-npy"


MULTIPART = "multipart/form-data"


OCTETS = "application/octet-stream"


def plain(content_type: str | None) -> str:
    """A media type without its parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()
