"""Media types of request and response bodies."""

from functools import lru_cache

JSON = "application/json"


NPY = "application/x-npy"


NPZ = "application/x-npz"


PNG = "image/png"


MULTIPART = "multipart/form-data"


OCTETS = "application/octet-stream"


TAR = "application/x-tar"

# Other names under which browsers, mail programs and object stores send pictures; the bytes say which format they have.
UNREGISTERED_PICTURES = frozenset({
    "image/vnd.mozilla.apng",
    "application/bmp", "application/x-bmp", "application/x-win-bitmap",
    "application/jpg", "application/jpeg", "application/x-jpg", "application/x-jpeg",
    "application/png", "application/x-png", "application/gif", "application/webp",
    "binary/octet-stream", "application/x-octet-stream", "application/binary", "application/x-binary",
})  # fmt: skip

# Subtypes of image/ that are registered for formats which are not read
# (https://www.iana.org/assignments/media-types/media-types.xhtml#image), without those that begin with vnd. and prs.
_OTHER_FORMATS = frozenset({
    "aces", "avci", "avcs", "avif", "cgm", "dicom-rle", "dpx", "emf", "fits", "g3fax", "heic", "heic-sequence",
    "heif", "heif-sequence", "hej2k", "hsj2", "ief", "j2c", "jaii", "jais", "jls", "jp2", "jph", "jphc", "jpm", "jpx",
    "jxl", "jxr", "jxra", "jxrs", "jxs", "jxsc", "jxsi", "jxss", "ktx", "ktx2", "naplps", "pwg-raster", "svg+xml",
    "t38", "tiff", "tiff-fx", "wmf",
})  # fmt: skip


@lru_cache(64)
def plain(content_type: str | None) -> str:
    """A media type without its parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


@lru_cache(64)
def may_be_picture(media_type: str) -> bool:
    """Whether a body of this media type is looked at as a picture: it names no other format.

    There are too many unregistered names to list them, such as image/jfif, image/x-png and image/tif.
    """
    kind, _, subtype = media_type.partition("/")
    if kind != "image" or media_type in UNREGISTERED_PICTURES:
        return media_type in UNREGISTERED_PICTURES
    return bool(subtype) and subtype not in _OTHER_FORMATS and not subtype.startswith(("vnd.", "prs."))


def is_file(media_type: str) -> bool:
    """Whether a part of a form without a file name is a file by its media type."""
    return media_type.startswith("image/") or media_type == OCTETS or media_type in UNREGISTERED_PICTURES
