"""Decode pictures to planes of colour of limited size: turned by EXIF, transparency blended with paper."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

from models.errors import InvalidInput
from models.handwriting.ready import FAINTEST
from models.spec import Array

_WORKING_SIZE = 320  # pixels, longer side: keeps the ink legible and the computation cheap
_HOT = 8  # pixels at each end of the range that may be faults of the sensor
_LEAST_INNER = 0.05  # of the opaque pixels: fewer pixels inside the strokes do not show which colour the ink has
_STEP = 4  # pixels: strokes are wider
_SAME_HUE, _FEW = 16, 0.001  # grey levels between channels; of the pixels
_OPAQUE = 253  # of 255: more than 0.99


def colours_of(picture: Image.Image) -> Array:
    """Decode a picture: uint8 (channels, height, width), one channel if it is grey, else three.

    Transparency is blended with paper, white for dark ink and black for light ink. Raises InvalidInput if all is
    transparent, and what Pillow raises for damaged pictures.
    """
    if picture.mode == "L" and not picture.info and max(picture.size) <= _WORKING_SIZE:
        return np.asarray(picture)[None]  # the same, without Pillow's checks
    shrunk = _shrunk(picture)
    *bands, last = shrunk.split()
    opacity = last if len(bands) == 3 else None  # of RGBA
    bands = bands if opacity else [*bands, last]
    planes = [np.asarray(band) for band in bands]
    if all(np.array_equal(planes[0], plane) for plane in planes[1:]):
        bands, planes = bands[:1], planes[:1]
    elif opacity is None and _have_one_hue(planes):
        return np.asarray(shrunk.convert("L"))[None]
    return np.stack(_on_paper(bands, planes, opacity) if opacity else planes)


def _have_one_hue(planes: list[Array]) -> bool:
    """Whether a picture is grey but for a tint of its light or paper, so that one channel shows all.

    A sample of the pixels is compared: strokes are wider than its step.
    """
    sample = [plane[::_STEP, ::_STEP].astype(np.float32) for plane in planes]
    means = [float(plane.mean()) for plane in sample]
    if min(means) < 1:
        return False
    first, *others = (plane * np.float32(means[0] / mean) for plane, mean in zip(sample, means, strict=True))
    apart = [np.count_nonzero(np.abs(first - other) > _SAME_HUE) for other in others]
    return bool(max(apart) <= _FEW * first.size)


def no_ink() -> InvalidInput:
    """Build the error for a blank page."""
    return InvalidInput("No ink found", "the picture shows no digit: it is blank, or the ink has too little contrast")


def _on_paper(bands: list[Image.Image], planes: list[Array], opacity: Image.Image) -> list[Array]:
    """Blend bands, which are also given as arrays, with paper. Raises InvalidInput if all is transparent."""
    alpha = np.asarray(opacity)
    if alpha.max() == 0:
        raise no_ink()
    if alpha.min() >= _OPAQUE:
        return planes
    paper = Image.new("L", opacity.size, 255 if _has_dark_ink(planes, alpha) else 0)
    return [np.asarray(Image.composite(band, paper, opacity)) for band in bands]


def _shrunk(picture: Image.Image) -> Image.Image:
    """Rotate by EXIF, shrink to _WORKING_SIZE, convert to L, RGB or RGBA. Large JPEGs are decoded at reduced size."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    width, height = (max(1, side * _WORKING_SIZE // max(picture.size)) for side in picture.size)
    picture.draft("RGB", (width, height))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if picture.mode == "1":
        picture = picture.convert("L")  # `reduce` does not average bits
    factor = max(picture.size) // (2 * _WORKING_SIZE)
    if factor > 1 and picture.mode != "P":
        picture = picture.reduce(factor)
    if picture.mode != (mode := "RGBA" if transparent else "L" if picture.mode == "L" else "RGB"):
        picture = picture.convert(mode)
    picture.thumbnail((_WORKING_SIZE, _WORKING_SIZE), Image.Resampling.BOX)
    if orientation in {None, 1}:
        return picture
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(picture)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Convert grey of 16 or 32 bits to 8 bits, stretched to the range of its pixels without a few hot or dead ones."""
    deep = np.nan_to_num(np.asarray(picture).astype(np.float32))
    few = min(_HOT, deep.size // 100)
    ordered = np.partition(deep, [few, deep.size - 1 - few], axis=None)
    low, high = float(ordered[few]), float(ordered[-1 - few])
    return Image.fromarray(((deep - low) * (255.0 / ((high - low) or 1.0))).clip(0, 255).astype(np.uint8))


def _has_dark_ink(planes: list[Array], opacity: Array) -> bool:
    """Whether ink on transparent paper is dark, from its colours and opacity, uint8 (height, width).

    If the paper was made transparent afterwards, the pixels around the strokes still have a shade of its colour: ink is
    darker than this halo or lighter.
    """
    darkest, lightest = int(min(plane.min() for plane in planes)), int(max(plane.max() for plane in planes))
    if lightest - darkest <= FAINTEST and not darkest < 128 <= lightest:
        return lightest < 128  # one colour
    grey = np.asarray(np.mean(planes, axis=0, dtype=np.float32))
    alpha = opacity / np.float32(255)
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
