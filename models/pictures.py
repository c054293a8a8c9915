"""Open pictures of supported formats and limited size."""

import io
from collections.abc import Callable

from PIL import ExifTags, Image, UnidentifiedImageError

from models.errors import InvalidInput
from models.picture_files import bmp, gif, jpeg, others, png, webp
from models.picture_files.completed import completed
from models.picture_files.stripped import Stripped, damaged_picture, ends_too_early

PICTURE_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/gif": "GIF",
}
_STRIP = {"JPEG": jpeg.strip, "WEBP": webp.strip, "GIF": gif.strip, "BMP": bmp.strip}


def open_picture(content: bytes, max_pixels: int) -> Image.Image:
    """Open the picture in `content`: read its header, do not decode its pixels yet.

    The format is detected from the bytes. Metadata is dropped before Pillow sees it; of EXIF and XMP the orientation is
    kept. A truncated picture that lacks few of its pixels is decoded, and they are filled in.

    Raises InvalidInput if the bytes are not a picture, or one with more than `max_pixels` pixels or too few rows.
    """
    kind, stripped = _stripped(content, max_pixels)
    if not stripped.files:
        raise ends_too_early()
    pictures = (_opened(file, kind, max_pixels, stripped.unchecked) for file in stripped.files)
    picture = next(pictures) if stripped.whole else completed(pictures)
    if stripped.orientation != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = stripped.orientation
        picture.info["exif"] = exif.tobytes()
    return picture


def format_of(content: bytes) -> str | None:
    """Return the format of a picture by its first bytes, as in PICTURE_FORMATS; None for other content."""
    if content.startswith(png.MAGIC):
        return "PNG"
    if content.startswith(jpeg.MAGIC):
        return "JPEG"
    if webp.is_webp(content):
        return "WEBP"
    if content.startswith(gif.MAGICS):
        return "GIF"
    return "BMP" if content.startswith(bmp.MAGIC) else None


def _stripped(content: bytes, max_pixels: int) -> tuple[str, Stripped]:
    """Return the format of the picture, and its file without metadata. Raises InvalidInput."""
    kind = format_of(content)
    match kind:
        case None:
            raise _no_picture(content)
        case "PNG":
            return kind, png.strip(content, max_pixels)
        case _:
            return kind, _STRIP[kind](content)


def _opened(content: bytes, kind: str, max_pixels: int, check: Callable[[], object] | None) -> Image.Image:
    """Open a file of the format with Pillow. A PNG file is checked if it is decoded. Raises InvalidInput."""
    try:
        picture = png.CheckedPng(content, check) if check else Image.open(io.BytesIO(content), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise InvalidInput("Picture too large", f"send a picture of at most {max_pixels} pixels in all") from err
    except UnidentifiedImageError as err:
        raise _no_picture(content) from err
    except Exception as err:  # Pillow's plugins raise KeyError, TypeError, struct.error and more for damaged headers
        raise damaged_picture() from err
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height}"
        raise InvalidInput("Picture too large", f"the picture has {size} pixels; send at most {max_pixels} in all")
    return picture


def _no_picture(content: bytes) -> InvalidInput:
    *most, last = PICTURE_FORMATS.values()
    what = others.description(content)
    reason = "" if what is None else f": it is {what}"
    return InvalidInput("No picture", f"the file cannot be read as a picture{reason}; send {', '.join(most)} or {last}")
