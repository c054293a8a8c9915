"""Truncated and damaged pictures, and floods of metadata: read, or an error that says what is missing."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.random import default_rng

from models.errors import InvalidInput
from models.picture_files.plain import read_plain_png
from models.pictures import open_picture
from tests.picture_bytes import MAX_PIXELS, PAGE, encoded, in_gif, in_png, in_webp, jpeg_segment, pixels_of, png_chunk


@cache
def inflated() -> bytes:
    """A deflate stream of 128 MiB of zeros."""
    return zlib.compress(bytes(2**27))


def metadata_floods() -> dict[str, Callable[[], bytes]]:
    """Files that are slow or large to read if all of their metadata is."""
    return {
        "jpeg segments": lambda: encoded("JPEG")[:2] + jpeg_segment(0xFE, b"") * 120_000 + encoded("JPEG")[2:],
        "png chunks": lambda: in_png(encoded("PNG"), png_chunk(b"tEXt", b"") * 40_000),
        "webp chunks": lambda: in_webp(encoded("WEBP"), b"EXIF", b"").ljust(200_000, b"\0"),
        "gif blocks": lambda: in_gif(encoded("GIF"), 0xFE, b"")[:-12] + b"\x21\xfe\1a\0" * 120_000,
        "gif bytes": lambda: encoded("GIF")[:13] + b"\0" * 200_000,
        "a png text": lambda: in_png(encoded("PNG"), png_chunk(b"zTXt", b"a\0\0" + inflated())),
        "a png exif text": lambda: in_png(
            encoded("PNG"), png_chunk(b"zTXt", b"Raw profile type exif\0\0" + inflated())
        ),
        "a png profile": lambda: in_png(encoded("PNG"), png_chunk(b"iCCP", b"a\0\0" + inflated())),
        "png rows": lambda: in_png(encoded("PNG", PAGE[:1, :1]), png_chunk(b"IDAT", inflated())),
    }


@pytest.mark.many
@pytest.mark.parametrize("kind", metadata_floods())
def test_a_flood_of_metadata_takes_little_memory_and_is_read_or_refused(kind: str) -> None:
    content = metadata_floods()[kind]()
    tracemalloc.start()
    try:
        picture = open_picture(content, MAX_PIXELS)
        assert picture.size in {(84, 84), (1, 1)}
    except InvalidInput as err:
        assert err.title == "Damaged picture"  # noqa: PT017 - either outcome is right
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * len(content) + 5_000_000


def test_a_png_with_a_wrong_checksum_of_a_critical_chunk_is_read_if_its_pixels_are() -> None:
    content = bytearray(encoded("PNG"))
    for place in (29, content.index(b"IDAT") + 4 + struct.unpack_from(">I", content, content.index(b"IDAT") - 4)[0]):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        assert np.array_equal(pixels_of(bytes(damaged)), PAGE)


@pytest.mark.parametrize(("place", "value"), [(19, 83), (19, 85), (23, 83), (23, 85), (23, 200), (24, 16), (25, 0)])
def test_a_png_with_a_damaged_header_is_an_error(place: int, value: int) -> None:
    content = bytearray(encoded("PNG"))
    content[place] = value
    with pytest.raises(InvalidInput, match="damaged"):
        open_picture(bytes(content), MAX_PIXELS)


@pytest.mark.parametrize("place", range(40, 1000, 60))
def test_a_png_with_damaged_pixel_data_is_an_error_or_whole(place: int) -> None:
    content = bytearray(encoded("PNG", default_rng(5).integers(0, 256, (40, 40), np.uint8)))
    content[place + 10] ^= 0x55
    try:
        open_picture(bytes(content), MAX_PIXELS).load()
    except InvalidInput as err:
        assert "damaged" in err.detail  # noqa: PT017 - a changed grey level is no damage that shows


def png_of_rows(rows: int, *, colour: int = 2, interlaced: int = 0) -> bytes:
    """A PNG that declares 84 rows, with a whole deflate stream of fewer."""
    header = struct.pack(">IIBBBBB", 84, 84, 8, colour, 0, 0, interlaced)
    width = 84 * (3 if colour == 2 else 1)
    data = zlib.compress((b"\0" + b"\xc8" * width) * rows)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("rows", [0, 1, 42, 83])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_png_whose_deflate_stream_lacks_rows_says_so(rows: int, colour: int) -> None:
    content = png_of_rows(rows, colour=colour)
    assert read_plain_png(content) is None
    with pytest.raises(InvalidInput, match=f"Damaged picture.*only {rows} of its 84 rows"):
        open_picture(content, MAX_PIXELS).load()
    with pytest.raises(InvalidInput, match="some of its rows"):
        open_picture(png_of_rows(rows, colour=colour, interlaced=1), MAX_PIXELS)
    assert pixels_of(png_of_rows(84, colour=colour)).min() == 200


def test_an_interlaced_png_is_read() -> None:
    """Pillow writes none: the seven passes are put together here."""
    data = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        data += b"".join(b"\0" + row.tobytes() for row in PAGE[y::dy, x::dx])
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 84, 84, 8, 2, 0, 0, 1))
    content = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    assert np.array_equal(pixels_of(content), PAGE)
    assert np.array_equal(pixels_of(content[:-12]), PAGE)


PHOTO = (PAGE * 0.9 + default_rng(6).normal(12, 4, PAGE.shape)).clip(0, 255).astype(np.uint8)
KINDS = {
    "PNG": encoded("PNG", PHOTO),
    "JPEG": encoded("JPEG", PHOTO),
    "progressive JPEG": encoded("JPEG", PHOTO, progressive=True),
    "grey JPEG": encoded("JPEG", PHOTO[..., 0]),
    "WEBP": encoded("WEBP", PHOTO),
    "lossless WEBP": encoded("WEBP", PHOTO, lossless=True),
    "BMP": encoded("BMP", PHOTO),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "WEBP" not in kind])
@pytest.mark.parametrize("cut", [1, 2, 4, 12, 20])
def test_a_picture_without_its_last_bytes_is_read(kind: str, cut: int) -> None:
    content = KINDS[kind]
    difference = np.abs(pixels_of(content[:-cut]).astype(int) - pixels_of(content))
    assert (difference > 32).mean() < 0.05


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind != "progressive JPEG"), "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.6])
def test_a_picture_without_much_of_its_pixels_says_that_it_ends_too_early(kind: str, share: float) -> None:
    content = (KINDS | {"GIF": encoded("GIF")})[kind]
    with pytest.raises(InvalidInput, match="Damaged picture: the picture ends too early"):
        open_picture(content[: max(24, int(len(content) * share))], MAX_PIXELS)


def test_a_progressive_jpeg_without_its_last_scan_is_the_whole_picture_less_sharp() -> None:
    content = KINDS["progressive JPEG"]
    difference = np.abs(pixels_of(content[: content.rindex(b"\xff\xda")]).astype(int) - pixels_of(content))
    assert difference.mean() < 16


@pytest.mark.many
@pytest.mark.parametrize("kind", [*KINDS, "GIF"])
def test_a_picture_cut_anywhere_is_read_or_damaged(kind: str) -> None:
    content = (KINDS | {"GIF": encoded("GIF")})[kind]
    for end in range(4, len(content), max(1, len(content) // 300)):
        try:
            open_picture(content[:end], MAX_PIXELS)
        except InvalidInput as err:
            assert err.title in {"Damaged picture", "No picture"}  # noqa: PT017 - "No picture": cut in its first bytes


def test_a_padding_that_is_larger_than_the_file_is_not_made() -> None:
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", 30_000, 30_000)
    with pytest.raises(InvalidInput, match="ends too early"):
        open_picture(bytes(content), MAX_PIXELS)
