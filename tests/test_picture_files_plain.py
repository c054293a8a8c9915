"""Fast decoder of plain PNG files: equal to Pillow for these, None for all other files."""

import io
import zlib
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from models.errors import InvalidInput
from models.handwriting.normalise import read_digit
from models.mnist import SPEC, drawn_seven
from models.picture_files.plain import read_plain_png
from models.pictures import open_picture
from service.execution.threads import Threads
from service.inference.decoding import Decoder

SEVEN = Image.fromarray(drawn_seven())


def png(picture: Image.Image = SEVEN, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png", **options)
    return file.getvalue()


def with_chunk(content: bytes, at: int, kind: bytes, data: bytes) -> bytes:
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return content[:at] + chunk + content[at:]


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.integers(0, 2**32))
def test_it_reads_what_pillow_reads(width: int, height: int, level: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    for pixels in (noise, noise // 64 * 64, np.sort(noise, axis=1)):  # so that every filter is met
        content = png(Image.fromarray(pixels), compress_level=level)
        read = read_plain_png(content)
        assert read is not None
        assert np.array_equal(read, np.asarray(Image.open(io.BytesIO(content))))


def text() -> bytes:
    told = PngImagePlugin.PngInfo()
    told.add_text("Title", "a seven")
    return png(pnginfo=told)


OTHERS: dict[str, Callable[[], bytes]] = {
    "colour": lambda: png(SEVEN.convert("RGB")),
    "one bit": lambda: png(SEVEN.convert("1")),
    "grey with alpha": lambda: png(SEVEN.convert("LA")),
    "16 bits": lambda: png(Image.fromarray(np.asarray(SEVEN).astype(np.uint16))),
    "a transparent grey": lambda: png(transparency=0),
    "text": text,
    "a chunk before the end": lambda: with_chunk(png(), len(png()) - 12, b"tEXt", b"a\0b"),
    "bytes after the end": lambda: png() + b"more",
    "another format": lambda: b"GIF89a" + bytes(100),
    "nothing": lambda: b"",
    "large": lambda: png(Image.new("L", (321, 320))),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_file_is_left_to_pillow(kind: str) -> None:
    assert read_plain_png(OTHERS[kind]()) is None


def test_a_cut_file_is_left_to_pillow_wherever_it_is_cut() -> None:
    content = png()
    assert not [end for end in range(len(content)) if read_plain_png(content[:end])]


def test_a_changed_byte_is_found_wherever_it_is() -> None:
    content = png()
    assert not [at for at in range(len(content)) if read_plain_png(changed(content, at))]


@pytest.mark.parametrize("pixels", [bytes(28 * 20), b""], ids=["few rows", "none"])
def test_a_picture_with_too_few_rows_is_damaged(pixels: bytes) -> None:
    content = png()
    content = with_chunk(content[:33] + content[-12:], 33, b"IDAT", zlib.compress(pixels))
    assert read_plain_png(content) is None
    with pytest.raises(InvalidInput, match="Damaged"):
        read_digit(open_picture(content, 10_000))


def test_a_plain_png_of_too_many_pixels_is_refused() -> None:
    with closing(Threads()) as threads, pytest.raises(InvalidInput, match="too large"):
        Decoder(783, threads).decode_inline("", SPEC, png())


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/gif", "image/png", "application/octet-stream", ""])
def test_a_plain_png_is_read_whatever_its_declared_type(media_type: str) -> None:
    with closing(Threads()) as threads:
        samples = Decoder(784, threads).decode_inline(media_type, SPEC, png())
    assert samples is not None
    assert np.array_equal(samples.good[0, 0], np.asarray(SEVEN))


@pytest.mark.parametrize("picture", [ImageOps.invert(SEVEN), SEVEN.resize((84, 84))], ids=["dark ink", "large"])
def test_a_plain_png_that_is_no_entry_yet_is_read_as_any_picture(picture: Image.Image) -> None:
    content = png(picture)
    assert read_plain_png(content) is not None
    with closing(Threads()) as threads:
        samples = Decoder(10_000, threads).decode_inline("image/png", SPEC, content)
    assert samples
    assert np.array_equal(samples.good[0, 0], read_digit(open_picture(content, 10_000)))
