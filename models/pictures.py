"""Open pictures of supported formats and limited size."""

import io

from PIL import Image, UnidentifiedImageError

from models.errors import InvalidInput

PICTURE_FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/gif": "GIF",
}


def open_picture(content: bytes, media_type: str, max_pixels: int) -> Image.Image:
    """Open the picture in `content`: read its header, do not decode its pixels yet.

    If the media type is one of PICTURE_FORMATS, the picture must have that format; otherwise the format is detected.
    Raises InvalidInput if the format does not match or the picture has more than `max_pixels` pixels.
    """
    formats = (PICTURE_FORMATS[media_type],) if media_type in PICTURE_FORMATS else tuple(PICTURE_FORMATS.values())
    try:
        picture = Image.open(io.BytesIO(content), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise InvalidInput("Picture too large", f"send a picture of at most {max_pixels} pixels in all") from err
    except UnidentifiedImageError as err:
        known = " or ".join(formats)
        raise InvalidInput("No picture", f"the file cannot be read as a picture; send {known}") from err
    except (OSError, ValueError, SyntaxError, EOFError) as err:
        raise damaged_picture() from err
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height}"
        raise InvalidInput("Picture too large", f"the picture has {size} pixels; send at most {max_pixels} in all")
    return picture


def damaged_picture() -> InvalidInput:
    """Build the error for a picture whose pixels cannot be decoded."""
    return InvalidInput("Damaged picture", "the picture is truncated or damaged; send the whole file")
