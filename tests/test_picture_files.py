"""Metadata of any content leaves the pixels of a picture as they are; its orientation is read."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import ExifTags, Image, ImageOps

from models.picture_files.orientation import exif_orientation, xmp_orientation
from models.pictures import open_picture
from tests.picture_bytes import (
    MAX_PIXELS,
    PAGE,
    encoded,
    exif_block,
    in_gif,
    in_jpeg,
    in_png,
    in_webp,
    mutated,
    pixels_of,
    png_chunk,
)


@pytest.mark.parametrize("prefix", [b"Exif\0\0", b""], ids=["whole block", "after the prefix"])
def test_1500_mutated_exif_blocks_leave_the_pixels_of_a_jpeg_as_they_are(prefix: bytes) -> None:
    content, random = encoded("JPEG"), default_rng(0)
    clean, block = pixels_of(content), exif_block()
    for _ in range(1500):
        body = prefix + mutated(block.removeprefix(prefix), random)
        picture = open_picture(in_jpeg(content, 0xE1, body), MAX_PIXELS)
        turned = ImageOps.exif_transpose(picture)
        assert np.array_equal(np.asarray(picture), clean)
        assert set(picture.getexif()) <= {ExifTags.Base.Orientation}
        assert turned.size == picture.size


SEGMENTS = {
    **{f"APP{marker - 0xE0}": (marker, b"") for marker in range(0xE0, 0xF0)},
    "COM": (0xFE, b"a comment"),
    "JFXX": (0xE0, b"JFXX\0\x10" + encoded("JPEG")),
    "JFIF": (0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0"),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>tiff:Orientation=&quot;6&quot;</x:xmpmeta>"),
    "ICC": (0xE2, b"ICC_PROFILE\0\1\2" + bytes(200)),
    "MPF": (0xE2, b"MPF\0II*\0\x08\0\0\0\3\0\0\xb0\7\0\4\0\0\0000100\1\xb0\4\0\1\0\0\0\2\0\0\0"),
    "Photoshop": (0xED, b"Photoshop 3.0\08BIM\3\xed\0\0\0\0\0\x10\0\x48\0\0"),
    "a thumbnail": (0xE1, b"Exif\0\0II*\0" + encoded("JPEG", PAGE[:20, :20])),
}


@pytest.mark.many
@pytest.mark.parametrize("kind", SEGMENTS)
def test_mutated_segments_leave_the_pixels_of_a_jpeg_as_they_are(kind: str) -> None:
    content, random = encoded("JPEG"), default_rng(1)
    marker, start = SEGMENTS[kind]
    clean = pixels_of(content)
    for _ in range(100):
        body = mutated(start + exif_block(), random)
        assert np.array_equal(pixels_of(in_jpeg(content, marker, body)), clean)


@pytest.mark.parametrize("start", [b"Adobe", b"Adobe\0\x64\0\0\0\0", b"adobe\0\x64\0\0\0\0\2", b""])
def test_an_adobe_segment_of_another_form_changes_no_colour(start: bytes) -> None:
    content = encoded("JPEG")
    assert np.array_equal(pixels_of(in_jpeg(content, 0xEE, start)), pixels_of(content))


def test_a_cmyk_jpeg_keeps_its_adobe_segment() -> None:
    file = io.BytesIO()
    Image.fromarray(PAGE).convert("CMYK").save(file, "JPEG")
    assert np.array_equal(pixels_of(file.getvalue()), np.asarray(Image.open(file).convert("RGB")))


def test_bytes_between_segments_and_segments_without_a_body_are_skipped() -> None:
    content = encoded("JPEG")
    for filler in (b"\xff\xff\xff", b"garbage", b"\xff\x00", b"\xff\xe5\0\0", b"\xff\xfe\0\1", b"\xff\xd0"):
        assert np.array_equal(pixels_of(content[:20] + filler + content[20:]), pixels_of(content))


CHUNKS = {
    "tEXt": b"Title\0a digit",
    "zTXt": b"Title\0\0" + zlib.compress(b"a digit"),
    "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>",
    "iCCP": b"icc\0\0" + zlib.compress(bytes(300)),
    "cHRM": bytes(32),
    "gAMA": struct.pack(">I", 45455),
    "sRGB": b"\0",
    "pHYs": bytes(9),
    "tIME": bytes(7),
    "bKGD": bytes(6),
    "sBIT": b"\10\10\10",
    "hIST": bytes(8),
    "sPLT": b"palette\0\10" + bytes(12),
    "eXIf": exif_block().removeprefix(b"Exif\0\0"),
    "acTL": struct.pack(">II", 2, 0),
    "fcTL": struct.pack(">IIIIIHHBB", 0, 84, 84, 0, 0, 1, 10, 0, 0),
    "vpAg": bytes(9),
}


@pytest.mark.many
@pytest.mark.parametrize("valid", [True, False], ids=["right checksum", "wrong checksum"])
@pytest.mark.parametrize("kind", CHUNKS)
def test_mutated_chunks_leave_the_pixels_of_a_png_as_they_are(kind: str, valid: bool) -> None:
    content, random = encoded("PNG"), default_rng(2)
    for number in range(100):
        body = mutated(CHUNKS[kind] + bytes(8), random) if number else CHUNKS[kind]
        chunk = png_chunk(kind.encode(), body, None if valid else b"\1\2\3\4")
        for at_end in (False, True):
            assert np.array_equal(pixels_of(in_png(content, chunk, at_end=at_end)), PAGE)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP", b"abcd"])
@pytest.mark.parametrize("lossless", [True, False])
def test_mutated_chunks_leave_the_pixels_of_a_webp_as_they_are(kind: bytes, lossless: bool) -> None:
    content, random = encoded("WEBP", lossless=lossless), default_rng(3)
    clean = np.asarray(Image.open(io.BytesIO(content)))
    for _ in range(100):
        assert np.array_equal(pixels_of(in_webp(content, kind, mutated(exif_block(), random))), clean)


@pytest.mark.parametrize(
    "label", [0xFE, 0xFF, 0x01, 0xF9, 0x00], ids=["comment", "application", "text", "control", "?"]
)
def test_mutated_blocks_leave_the_pixels_of_a_gif_as_they_are(label: int) -> None:
    content, random = encoded("GIF"), default_rng(4)
    clean = pixels_of(content)
    for start in (b"NETSCAPE2.0", b"XMP DataXMP", b"a comment"):
        for _ in range(60):
            body = start + mutated(exif_block(), random)
            assert np.array_equal(pixels_of(in_gif(content, label, body)), clean)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", range(10))
def test_the_orientation_is_read_whatever_surrounds_it(order: str, kind: int, value: int) -> None:
    sign = "<" if order == "little" else ">"
    field = struct.pack(sign + {1: "B", 3: "H", 4: "I"}[kind], value).ljust(4, b"\0")
    entries = [
        struct.pack(f"{sign}HHII", 0x010F, 2, 2**32 - 1, 2**32 - 1),  # a text without an end
        struct.pack(f"{sign}HHI", 0x0112, kind, 1) + field,
        struct.pack(f"{sign}HHII", 0x8769, 99, 0, 0),
    ]
    tiff = (b"II*\0" if order == "little" else b"MM\0*") + struct.pack(f"{sign}I", 8)
    block = tiff + struct.pack(f"{sign}H", 60_000) + b"".join(entries)
    expected = value if 1 <= value <= 8 else 1
    assert exif_orientation(b"Exif\0\0" + block) == exif_orientation(block) == expected
    turned = in_jpeg(encoded("JPEG"), 0xE1, b"Exif\0\0" + block)
    assert open_picture(turned, MAX_PIXELS).getexif().get(ExifTags.Base.Orientation, 1) == expected


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<HHI4s", 0x0112, 2, 2, b"6\0"),
        struct.pack("<HHII", 0x0112, 5, 1, 8),
        struct.pack("<HHII", 274, 3, 2, 6),
    ],
    ids=["text", "fraction", "two numbers"],
)
def test_an_orientation_that_is_no_whole_number_turns_nothing(entry: bytes) -> None:
    assert exif_orientation(b"II*\0\x08\0\0\0\1\0" + entry) == 1


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"II", b"II+\0\x08\0", b"XX*\0" + bytes(99), b"MM\0*\xff\xff\xff\xff"]
)
def test_a_block_that_cannot_be_read_turns_nothing(block: bytes) -> None:
    assert exif_orientation(block) == 1


def test_the_orientation_is_found_in_every_place() -> None:
    tiff = exif_block(6).removeprefix(b"Exif\0\0")
    profile = b"\nexif\n%8d\n" % len(tiff) + tiff.hex().encode()
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    png, webp = encoded("PNG"), encoded("WEBP", lossless=True)
    files = {
        "jpeg": in_jpeg(encoded("JPEG"), 0xE1, exif_block(6)),
        "jpeg, xmp": in_jpeg(encoded("JPEG"), 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        "png": in_png(png, png_chunk(b"eXIf", tiff)),
        "png, after the pixels": in_png(png, png_chunk(b"eXIf", tiff), at_end=True),
        "png, text": in_png(png, png_chunk(b"tEXt", b"Raw profile type exif\0" + profile)),
        "png, deflated text": in_png(png, png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))),
        "png, xmp": in_png(png, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        "webp": in_webp(webp, b"EXIF", tiff),
        "webp, with the prefix of jpeg": in_webp(webp, b"EXIF", exif_block(6)),
        "webp, xmp": in_webp(webp, b"XMP ", xmp),
    }
    found = {
        kind: open_picture(file, MAX_PIXELS).getexif().get(ExifTags.Base.Orientation) for kind, file in files.items()
    }
    assert found == dict.fromkeys(files, 6)
    assert xmp_orientation(b"<tiff:Orientation>6</tiff:Orientation>") == 6
