"""Media types of request and response bodies."""

JSON = "application/json"


NPY = "application/x-npy"


MULTIPART = "multipart/form-data"


OCTETS = "application/octet-stream"

# Other names under which browsers, mail programs and object stores send pictures; the bytes say which format they have.
UNREGISTERED_PICTURES = frozenset({
    "image/*",
    "image/jpg", "image/pjpeg", "image/x-jpeg", "image/x-jpg", "image/jpe", "image/x-citrix-jpeg",
    "image/x-png", "image/apng", "image/x-apng", "image/vnd.mozilla.apng", "image/x-citrix-png",
    "image/x-bmp", "image/x-ms-bmp", "image/x-windows-bmp", "image/x-bitmap", "image/ms-bmp", "image/x-win-bitmap",
    "application/bmp", "application/x-bmp",
    "image/x-webp", "image/x-gif",
    "binary/octet-stream", "application/x-octet-stream", "application/binary", "application/x-binary",
})  # fmt: skip


def plain(content_type: str | None) -> str:
    """A media type without its parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_file(media_type: str) -> bool:
    """Whether a part of a form without a file name is a file by its media type."""
    return media_type.startswith("image/") or media_type == OCTETS or media_type in UNREGISTERED_PICTURES
