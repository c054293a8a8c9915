"""Picture files with any metadata in them."""

import io
import struct
import zlib

import numpy as np
from numpy.random import Generator
from PIL import ExifTags, Image

from models.mnist import drawn_seven
from models.pictures import open_picture
from models.spec import Array

MAX_PIXELS = 1_000_000
PAGE = np.stack([255 - drawn_seven().repeat(3, axis=0).repeat(3, axis=1)] * 3, axis=-1)  # (84, 84, 3), dark on light


def encoded(kind: str, pixels: Array = PAGE, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def pixels_of(content: bytes) -> Array:
    return np.asarray(open_picture(content, MAX_PIXELS).convert("RGB"))


def exif_block(orientation: int = 6) -> bytes:
    """An EXIF block as a camera writes it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.XResolution] = 72.5
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + b"x" * 60
    exif.get_ifd(ExifTags.IFD.GPSInfo)[2] = (1.0, 2.0, 3.0)
    return exif.tobytes()


def mutated(block: bytes, random: Generator) -> bytes:
    """The block with bytes replaced, and sometimes cut, with a piece inserted, or replaced as a whole."""
    content = bytearray(block)
    for place in random.integers(0, len(content), random.integers(1, 20)):
        content[place] = random.integers(256)
    match random.integers(6):
        case 0:
            return bytes(content[: random.integers(len(content))])
        case 1:
            place = int(random.integers(len(content)))
            return bytes(content[:place]) + random.bytes(int(random.integers(30))) + bytes(content[place:])
        case 2:
            return random.bytes(int(random.integers(400)))
    return bytes(content)


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return b"\xff%c" % marker + struct.pack(">H", len(body) + 2) + body


def in_jpeg(content: bytes, marker: int, body: bytes) -> bytes:
    return content[:2] + jpeg_segment(marker, body) + content[2:]


def png_chunk(kind: bytes, body: bytes, checksum: bytes | None = None) -> bytes:
    valid = zlib.crc32(kind + body).to_bytes(4, "big")
    return struct.pack(">I", len(body)) + kind + body + (valid if checksum is None else checksum)


def in_png(content: bytes, chunk: bytes, *, at_end: bool = False) -> bytes:
    place = len(content) - 12 if at_end else 33
    return content[:place] + chunk + content[place:]


def in_webp(content: bytes, kind: bytes, body: bytes) -> bytes:
    """The file in its extended form, with one more chunk."""
    height, width = (int(side) for side in PAGE.shape[:2])
    flags = bytes([0x20 | 0x08 | 0x04, 0, 0, 0])
    extended = b"VP8X" + struct.pack("<I", 10) + flags + (width - 1).to_bytes(3, "little")
    extended += (height - 1).to_bytes(3, "little")
    chunks: bytes = extended + content[12:] + kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def in_gif(content: bytes, label: int, body: bytes) -> bytes:
    """The file with an extension block after its colour table."""
    place = 13 + (3 << ((content[10] & 7) + 1) if content[10] & 0x80 else 0)
    pieces = [body[at : at + 255] for at in range(0, len(body), 255)]
    blocks = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    return content[:place] + bytes([0x21, label]) + blocks + b"\0" + content[place:]
