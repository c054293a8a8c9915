"""Digests of the content of rows, in canonical form: the same content has the same digest in every format."""

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from PIL import Image

from models.coding import picture_file
from models.errors import InvalidInput
from models.picture_files.plain import read_plain_png
from models.pictures import open_picture
from models.signature import Number, Picture, is_missing
from models.spec import Array, ModelSpec

_MODES = {"1": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "RGBa": "RGBA"}
_ORIENTATION = 0x0112  # EXIF


def of_picture(content: bytes, max_pixels: int) -> bytes:
    """Return the digest of a picture: its mode, size and pixels, as they are read. 32 bytes.

    A picture that only the model's reader can read has the digest of its bytes.
    """
    pixels = read_plain_png(content)
    if pixels is not None:
        return of_pixels(pixels)
    try:
        picture = open_picture(content, max_pixels)
        orientation = picture.getexif().get(_ORIENTATION, 1)
        if picture.mode in _MODES:
            has_alpha = picture.mode in {"LA", "PA", "RGBa"} or "transparency" in picture.info
            mode = _MODES[picture.mode]
            picture = picture.convert("RGB" if mode == "RGBA" and not has_alpha else mode)
        else:
            picture.load()
    except (InvalidInput, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return hashlib.sha256(b"file\0" + content).digest()
    turned = b"" if orientation == 1 else b" turned %d" % orientation
    return _picture(picture.mode, picture.size, picture.tobytes(), turned)


def of_pixels(pixels: Array) -> bytes:
    """Return the digest of uint8 (height, width), grey, or (height, width, 3): that of a picture with these pixels."""
    mode = {2: "L", 3: "RGB"}[pixels.ndim]
    return _picture(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes(), b"")


def is_picture(array: Array) -> bool:
    """Return whether an array has the form of pixels."""
    return array.dtype == np.uint8 and array.size > 0 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))


def of_numbers(array: Array) -> bytes:
    """Return the digest of decoded numbers: their shape and their values as float64; 0 and -0 are the same.

    Numbers of a file are decoded to the model's dtype first: 0.1 is another float64 than it is a float32.
    """
    numbers = np.ascontiguousarray(array, dtype="<f8") + 0.0
    return hashlib.sha256(b"numbers %s\0" % str(array.shape).encode() + numbers.tobytes()).digest()


def of_named(values: Mapping[str, Any], coded: Mapping[str, Any], spec: ModelSpec, max_pixels: int) -> bytes:
    """Return the digest of a sample by names. Missing values do not count.

    values  as the file has them: pictures count by their pixels, whatever the model makes of these
    coded   the checked values, by which the other inputs count. A Number counts as float32, as the network gets it,
            unless the spec's `encode` gets all its digits
    """
    parts = {
        name: _part(value, coded[name], spec, name, max_pixels)
        for name, value in sorted(values.items())
        if not is_missing(value)
    }
    return hashlib.sha256(b"named\0" + orjson.dumps(parts)).digest()


def _part(value: Any, coded: Any, spec: ModelSpec, name: str, max_pixels: int) -> Any:
    kind = spec.inputs[name]
    if isinstance(kind, Picture) and isinstance(value, str | bytes):
        return of_picture(picture_file(value), max_pixels).hex()
    if isinstance(kind, Picture) and isinstance(value, Image.Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        return of_picture(file.getvalue(), max_pixels).hex()
    if isinstance(kind, Picture) and isinstance(value, np.ndarray) and is_picture(value):
        return of_pixels(value).hex()
    if isinstance(coded, np.ndarray):
        return of_numbers(coded).hex()
    if isinstance(kind, Number) and spec.encode is None:
        coded = float(kind.array(coded))
    if isinstance(coded, float) and coded.is_integer() and abs(coded) < 2**53:
        return int(coded)
    return coded


def _picture(mode: str, size: tuple[int, int], pixels: bytes, turned: bytes) -> bytes:
    head = b"picture %s %dx%d%s\0" % (mode.encode(), *size, turned)
    return hashlib.sha256(head + pixels).digest()
