"""Strip PNG files: keep the chunks that pixels are decoded from, and check that all rows of pixels are there.

Source: PNG Specification, third edition, sections 5 (structure), 8 (interlacing), 10 (compression), 11 (chunks).
"""

import struct
import zlib
from collections.abc import Iterator

from models.picture_files.orientation import orientation
from models.picture_files.stripped import MOST_MISSING, Stripped, damaged_picture, ends_too_early

MAGIC = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">I4s")
_IHDR = struct.Struct(">IIBBBBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_TRANSPARENCY = {0: 2, 2: 6, 3: 1}  # colour type -> least bytes of a tRNS chunk
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7
_MOST_CHUNKS = 30_000
_PIECE = 1 << 16  # bytes that are inflated at once
_MOST_TEXT = 1 << 17  # bytes of an EXIF block in hexadecimal form
_HEX_EXIF = b"Raw profile type exif"  # keyword that ImageMagick uses
_XMP = b"XML:com.adobe.xmp"
_UP = 2  # filter of a row: its bytes are differences from the row above


class _Chunks:
    """The chunks of a file that matter here."""

    def __init__(self, content: bytes) -> None:
        self.header = self.palette = self.transparency = b""
        self.header_intact = True
        self.whole = False
        self.exif = self.xmp = b""
        data: list[bytes] = []
        position = len(MAGIC)
        for _ in range(_MOST_CHUNKS):
            if position + _HEAD.size > len(content):
                break
            length, kind = _HEAD.unpack_from(content, position)
            end = position + _HEAD.size + length
            if kind == b"IEND" or not kind.isalpha():
                self.whole = kind == b"IEND"
                break
            if kind == b"IDAT":
                data.append(content[position + _HEAD.size : end])
            elif kind in _KNOWN:
                self._take(kind, content[position + _HEAD.size : end], content[end : end + 4])
            position = end + 4
        else:
            raise damaged_picture("the picture has too many chunks")
        self.data = b"".join(data)

    def _take(self, kind: bytes, body: bytes, checksum: bytes) -> None:
        if kind == b"IHDR" and not self.header:
            self.header = body
            self.header_intact = zlib.crc32(kind + body).to_bytes(4) == checksum
        elif kind == b"PLTE":
            self.palette = self.palette or body
        elif kind == b"tRNS":
            self.transparency = self.transparency or body
        elif kind == b"eXIf":
            self.exif = self.exif or body
        elif body.startswith(_HEX_EXIF + b"\x00"):
            self.exif = self.exif or _from_hexadecimal(body[len(_HEX_EXIF) + 1 :], deflated=kind == b"zTXt")
        elif body.startswith(_XMP + b"\x00"):
            self.xmp = self.xmp or body


_KNOWN = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"tEXt", b"zTXt", b"iTXt"}


def strip(content: bytes, max_pixels: int) -> Stripped:
    """Keep header, palette, transparency and pixel data, with valid checksums.

    A file of at most `max_pixels` pixels is inflated once to check that all rows are there. If the file is truncated
    and lacks few rows at its end, they become copies of the last row.

    Raises InvalidInput if rows are missing or the pixel data is damaged.
    """
    chunks = _Chunks(content)
    turned = orientation(chunks.exif, chunks.xmp)
    if len(chunks.header) != _IHDR.size:
        return Stripped((), turned)
    width, height, depth, colour, *_, interlaced = _IHDR.unpack(chunks.header)
    data = chunks.data
    if 0 < width * height <= max_pixels and colour in _CHANNELS and data:
        rows = _Rows(width, height, depth * _CHANNELS[colour], bool(interlaced))
        data = rows.checked(data, whole=chunks.whole, exact=not chunks.header_intact)
    elif not data:
        return Stripped((), turned)
    kept = [MAGIC, _chunk(b"IHDR", chunks.header)]
    if colour == 3:
        kept.append(_chunk(b"PLTE", chunks.palette[: len(chunks.palette) // 3 * 3][: 3 * 256]))
    if len(chunks.transparency) >= _TRANSPARENCY.get(colour, len(chunks.transparency) + 1):
        kept.append(_chunk(b"tRNS", chunks.transparency[:256]))
    return Stripped((b"".join([*kept, _chunk(b"IDAT", data), _chunk(b"IEND", b"")]),), turned)


class _Rows:
    """The rows of a picture in its deflate stream: each is one byte for the filter, then its pixels."""

    def __init__(self, width: int, height: int, bits: int, interlaced: bool) -> None:
        self._height = height
        self._interlaced = interlaced
        self._row = 1 + (width * bits + 7) // 8
        self._size = self._row * height
        if interlaced:
            sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _PASSES]
            self._size = sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0)

    def checked(self, data: bytes, *, whole: bool, exact: bool) -> bytes:
        """Return the deflate stream, completed if the file is truncated and few rows are missing.

        `exact`: more data than the rows need is an error, too. Raises InvalidInput.
        """
        pieces = _Inflated(data, self._size)
        count = sum(map(len, pieces))
        if count >= self._size:
            if exact and count != self._size:
                raise damaged_picture("the picture's header is damaged: it does not fit the pixel data")
            return data
        found = count // self._row
        if whole or pieces.ended or pieces.damaged:
            known = "some of its rows" if self._interlaced else f"{found} of its {self._height} rows"
            raise damaged_picture(f"the pixel data is damaged: it has only {known}")
        if self._interlaced or found < 1 or self._height - found > MOST_MISSING * self._height:
            raise ends_too_early()
        return self._completed(data, found)

    def _completed(self, data: bytes, found: int) -> bytes:
        """Repeat the last of the `found` rows to the end of the picture."""
        left, deflater = found * self._row, zlib.compressobj(1)
        written: list[bytes] = []
        for piece in _Inflated(data, left):
            written.append(deflater.compress(piece[:left]))
            left -= min(left, len(piece))
        same = bytes([_UP]) + bytes(self._row - 1)
        return b"".join([*written, deflater.compress(same * (self._height - found)), deflater.flush()])


class _Inflated:
    """Iterate over a deflate stream in pieces, until it has given `size` bytes or a little more, or is damaged."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size
        self.ended = self.damaged = False

    def __iter__(self) -> Iterator[bytes]:
        inflater, count, position = zlib.decompressobj(), 0, 0
        rest = b""
        try:
            while count <= self._size and not inflater.eof:
                if not rest:
                    rest = self._data[position : position + _PIECE]
                    position += len(rest)
                exhausted = not rest
                piece = inflater.decompress(rest, min(self._size - count + 1, 1 << 20))
                if exhausted and not piece:
                    break
                rest = inflater.unconsumed_tail
                count += len(piece)
                yield piece
            self.ended = inflater.eof
        except zlib.error:
            self.damaged = True


def _from_hexadecimal(text: bytes, *, deflated: bool) -> bytes:
    """Decode an EXIF block that ImageMagick wrote as text; empty if it cannot be read."""
    try:
        if deflated:
            text = zlib.decompressobj().decompress(text[1:], _MOST_TEXT)
        return bytes.fromhex(b"".join(text[:_MOST_TEXT].split(b"\n")[3:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(body, zlib.crc32(kind)).to_bytes(4)
