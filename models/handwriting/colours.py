"""Decode pictures to planes of colour of limited size: turned by EXIF, transparency blended with paper."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

from models.errors import InvalidInput
from models.handwriting.ready import FAINTEST
from models.spec import Array

_WORKING_SIZE = 320  # pixels, longer side: keeps the ink legible and the computation cheap
_HOT = 8  # pixels at each end of the range that may be faults of the sensor
_LEAST_INNER = 0.05  # of the opaque pixels: fewer pixels inside the strokes do not show which colour the ink has
_OPAQUE = 253  # of 255: more than 0.99


def colours_of(picture: Image.Image) -> Array:
    """Decode a picture: float32 (channels, height, width) in 0..255, one channel if it is grey, else three.

    Transparency is blended with paper, white for dark ink and black for light ink. Raises InvalidInput if all is
    transparent, and what Pillow raises for damaged pictures.
    """
    *bands, last = (np.asarray(band) for band in _shrunk(picture).split())
    if len(bands) < 3:
        return _distinct([*bands, last])
    colours = _distinct(bands)
    if last.min() >= _OPAQUE:
        return colours
    if last.max() == 0:
        raise no_ink()
    alpha = last / np.float32(255)
    paper = 255 if _has_dark_ink(colours.mean(axis=0), alpha) else 0
    blended: Array = colours * alpha + paper * (1 - alpha)
    return blended


def no_ink() -> InvalidInput:
    """Build the error for a blank page."""
    return InvalidInput("No ink found", "the picture shows no digit: it is blank, or the ink has too little contrast")


def _distinct(bands: list[Array]) -> Array:
    """Stack bands, uint8 (height, width), as float32; equal ones become one."""
    grey = all(np.array_equal(bands[0], band) for band in bands[1:])
    return np.stack(bands[:1] if grey else bands).astype(np.float32)


def _shrunk(picture: Image.Image) -> Image.Image:
    """Rotate by EXIF, shrink to _WORKING_SIZE, convert to L, RGB or RGBA. Large JPEGs are decoded at reduced size."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    picture.draft("RGB", (_WORKING_SIZE, _WORKING_SIZE))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if picture.mode == "1":
        picture = picture.convert("L")  # `reduce` does not average bits
    factor = max(picture.size) // (2 * _WORKING_SIZE)
    if factor > 1 and picture.mode != "P":
        picture = picture.reduce(factor)
    if transparent or picture.mode != "L":
        picture = picture.convert("RGBA" if transparent else "RGB")
    picture.thumbnail((_WORKING_SIZE, _WORKING_SIZE), Image.Resampling.BOX)
    picture.getexif()[ExifTags.Base.Orientation] = orientation or 1
    return ImageOps.exif_transpose(picture)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert grey of 16 or 32 bits to 8 bits, stretched to the range of its pixels without a few hot or dead ones."""
    deep = np.nan_to_num(np.asarray(picture).astype(np.float32))
    few = min(_HOT, deep.size // 100)
    ordered = np.partition(deep, [few, deep.size - 1 - few], axis=None)
    low, high = float(ordered[few]), float(ordered[-1 - few])
    return Image.fromarray(((deep - low) * (255.0 / ((high - low) or 1.0))).clip(0, 255).astype(np.uint8))


def _has_dark_ink(grey: Array, alpha: Array) -> bool:
    """Whether ink on transparent paper is dark, from the pixels' grey and opacity, (height, width).

    If the paper was made transparent afterwards, the pixels around the strokes still have a shade of its colour: ink is
    darker than this halo or lighter.
    """
    opaque = alpha > 0.5
    inner = opaque.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inner &= np.roll(opaque, step, axis=axis)
    halo = opaque & ~inner
    if inner.sum() > _LEAST_INNER * opaque.sum():
        difference = float(grey[halo].mean() - grey[inner].mean()) if halo.any() else 0.0
        if abs(difference) > FAINTEST:
            return difference > 0
    return bool(np.average(grey, weights=alpha) < 128)
