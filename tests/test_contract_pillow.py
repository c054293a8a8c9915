"""Contract of the private names of Pillow that models/picture_files/plain.py uses: PIL._imaging.

A failure here means that another version of Pillow changed one of them: adapt png.py, then move the pin in pyproject.
"""

import zlib

import pytest
from PIL import _imaging as core

SIZE = (3, 2)
BOX = (0, 0, *SIZE)
PIXELS = bytes([0, 50, 100, 150, 200, 250])
ROWS = zlib.compress(b"\0" + PIXELS[:3] + b"\0" + PIXELS[3:])  # each row begins with its PNG filter, 0: none


@pytest.mark.parametrize("name", ["fill", "zip_decoder", "raw_encoder"])
def test_imaging_has_the_functions_that_png_uses(name: str) -> None:
    assert callable(getattr(core, name, None)), f"PIL._imaging.{name} is gone or no longer a function"


def test_zip_decoder_reads_grey_rows_into_an_image_and_raw_encoder_writes_them() -> None:
    picture = core.fill("L", SIZE, 1)
    decoder = core.zip_decoder("L", "L", 0)
    decoder.setimage(picture, BOX)
    unfinished, fault = decoder.decode(ROWS)
    assert unfinished < 0, "zip_decoder.decode no longer returns a negative number first for a finished picture"
    assert not fault, "zip_decoder.decode no longer returns 0 second for an intact picture"
    encoder = core.raw_encoder("L", "L")
    encoder.setimage(picture, BOX)
    _, status, pixels = encoder.encode(len(PIXELS))
    assert status >= 0, "raw_encoder.encode no longer reports success with a status of at least 0"
    assert pixels == PIXELS, "raw_encoder.encode no longer returns the pixels third"


DAMAGED = {
    "no deflate stream": b"no deflate stream",
    "an unknown filter": zlib.compress(b"\x09" + ROWS),
    "a cut row": zlib.compress(b"\0" + PIXELS[:3] + b"\0"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
def test_zip_decoder_reports_damage(content: bytes) -> None:
    decoder = core.zip_decoder("L", "L", 0)
    decoder.setimage(core.new("L", SIZE), BOX)
    try:
        unfinished, fault = decoder.decode(content)
    except (ValueError, OSError):
        return
    assert unfinished >= 0 or fault, "zip_decoder.decode reports damage neither by an error nor by what it returns"
