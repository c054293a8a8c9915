"""Encode Pillow images as PNG: any mode, turned as their EXIF orientation says."""

import io
import math
import struct
from array import array
from typing import Any

from service.client.errors import BadArgument, first_line

_ORIENTATION = 0x0112  # EXIF tag. Its values (CIPA DC-008, 4.6.5.1) -> names of Image.Transpose:
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
_AS_THEY_ARE = {"1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B"}  # modes that PNG has
_OTHERS = {"La": "LA", "RGBa": "RGBA", "I;16L": "I", "I;16N": "I"}  # all other modes become RGB
# Errors of Pillow for damaged files and metadata, closed images, and modes that it cannot convert.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError, MemoryError,
    RuntimeError, struct.error,
)  # fmt: skip


def is_picture(item: Any) -> bool:
    """Return whether an item is a Pillow image, without importing Pillow."""
    return not isinstance(item, type) and hasattr(item, "getbands") and hasattr(item, "save")


def png(picture: Any) -> bytes:
    """Encode the current frame of a Pillow image. Raises BadArgument."""
    from PIL import Image  # noqa: PLC0415 - an optional dependency: callers with Pillow images have it

    try:
        picture.load()  # before the orientation is read: loading a TIFF file turns it
        if not all(picture.size):
            raise BadArgument("the picture has no pixels")
        turn = _turn(picture)
        pixels = _in_a_mode_of_png(picture)
        if turn is not None:
            pixels = pixels.transpose(Image.Transpose[turn])
        if pixels is picture:
            pixels = picture.copy()
        pixels.info = {}  # metadata that could make writing fail, or turn the picture again
        file = io.BytesIO()
        pixels.save(file, "PNG")
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise BadArgument(f"the picture of mode {picture.mode} cannot be encoded ({first_line(err)})") from err
    return file.getvalue()


def _turn(picture: Any) -> str | None:
    """Return the name of the transposition that brings a picture upright, None if it is, or its EXIF is damaged."""
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except (*_UNREADABLE, UserWarning):  # a caller may have made warnings errors
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _in_a_mode_of_png(picture: Any) -> Any:
    if "transparency" in picture.info or (picture.palette is not None and "A" in picture.palette.mode):
        try:
            return picture.convert("RGBA")
        except _UNREADABLE:
            picture = picture.copy()
            del picture.info["transparency"]  # of a form that does not belong to the mode
    mode = picture.mode
    if mode in _AS_THEY_ARE:
        return picture
    if mode == "PA":
        return picture.convert("RGBA")
    if mode == "LAB":
        return _from_lab(picture)
    if mode == "F":
        picture = _from_floats(picture)
    elif mode != "I":
        picture = picture.convert(_OTHERS.get(mode, "RGB"))
    return _from_integers(picture) if picture.mode == "I" else picture


def _from_lab(picture: Any) -> Any:
    from PIL import ImageCms  # noqa: PLC0415

    try:
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError) as err:
        raise BadArgument(f"the picture of mode LAB cannot be converted to RGB ({first_line(err)})") from err


def _from_floats(picture: Any) -> Any:
    """Convert mode F to mode I. Raises BadArgument for values that are not grey levels."""
    if not math.isfinite(math.fsum(array("f", picture.tobytes()))):
        raise BadArgument("the picture of mode F has values that are NaN or infinite")
    low, high = picture.getextrema()
    if low >= 0 and 0 < high <= 1:
        raise BadArgument("the picture of mode F has values from 0 to 1: multiply them by 255")
    return picture.point(lambda value: value + 0.5).convert("I") if low >= 0 else picture.convert("I")


def _from_integers(picture: Any) -> Any:
    """Convert mode I to 8 bits if its values fit, else to 16 bits. Raises BadArgument."""
    low, high = picture.getextrema()
    if low < 0 or high > 65_535:
        raise BadArgument(f"the picture has values from {low} to {high}: they must be grey levels, 0 to 255 or 65535")
    return picture.convert("L" if high <= 255 else "I;16")
