"""Open pictures of known formats and bounded size."""

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
    """The picture in `content`, its header read and its pixels not yet decoded.

    A media type of PICTURE_FORMATS must be true; under any other one the bytes tell their format themselves.
    Raises InvalidInput where it is no such picture or has more than `max_pixels` pixels.
    """
    formats = (PICTURE_FORMATS[media_type],) if media_type in PICTURE_FORMATS else tuple(PICTURE_FORMATS.values())
    try:
        picture = Image.open(io.BytesIO(content), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise InvalidInput("Picture too large", f"send a picture of at most {max_pixels} pixels in all") from err
    except UnidentifiedImageError as err:
        known = " or ".join(formats)
        raise InvalidInput("No picture", f"the bytes are no picture that can be read; send {known}") from err
    except (OSError, ValueError, SyntaxError, EOFError) as err:
        raise damaged_picture() from err
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height}"
        raise InvalidInput("Picture too large", f"the picture has {size} pixels; send at most {max_pixels} in all")
    return picture


def damaged_picture() -> InvalidInput:
    """What to raise where a picture's pixels cannot be decoded."""
    return InvalidInput("Damaged picture", "the picture is truncated or damaged; send the whole file")
