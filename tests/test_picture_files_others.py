"""A file of an unsupported format is named in the error."""

import io

import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidInput
from models.picture_files.others import description
from models.pictures import open_picture


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


NAMED = {
    "empty": (b"", "empty"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC file"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "an AVIF file"),
    "MP4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
    "TIFF": (saved("TIFF"), "a TIFF file"),
    "ICO": (b"\0\0\1\0\1\0\x10\x10", "an icon"),
    "PPM": (saved("PPM"), "a Netpbm file"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "SVG": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg width="28"></svg>', "an SVG drawing"),
    "HTML": (b" <!DOCTYPE html><HTML></HTML>", "an HTML page"),
    "XML": (b"<error/>", "markup"),
    "DICOM": (b"\0" * 128 + b"DICM", "a DICOM file"),
    "array": (array(), "a NumPy array (its Content-Type is application/x-npy)"),
    "base64": (b"iVBORw0KGgoAAAANSUhEUg==", "base64 text of a PNG file"),
    "JSON": (b'{"inputs": [[1]]}', "text (the Content-Type of JSON is application/json)"),
}


@pytest.mark.parametrize(("content", "what"), NAMED.values(), ids=NAMED)
def test_a_file_of_another_format_is_named(content: bytes, what: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_picture(content, 10_000)
    assert caught.value.detail == (
        f"the file cannot be read as a picture: it is {what}; send PNG, JPEG, WEBP, BMP or GIF"
    )


def test_of_an_unknown_file_nothing_is_said() -> None:
    assert description(b"hello") is None
    with pytest.raises(InvalidInput, match="the file cannot be read as a picture; send PNG"):
        open_picture(b"hello", 10_000)
