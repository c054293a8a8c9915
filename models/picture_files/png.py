"""Strip PNG files: keep the chunks that pixels are decoded from, and check that all rows of pixels are there.

Source: PNG Specification, third edition, sections 5 (structure), 8 (interlacing), 10 (compression), 11 (chunks).
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from PIL import _imaging
from PIL.PngImagePlugin import PngImageFile

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
_SMALL = 1 << 16  # pixels: to inflate them takes no longer than to find out whether that is necessary
_UNUSED = bytes(4)  # checksum of the pixel data: Pillow reads over it, and it takes long for a photo
_UP = 2  # filter of a row: its bytes are differences from the row above


class _Chunks:
    """The chunks of a file that matter here."""

    def __init__(self, content: bytes) -> None:
        self.header = self.palette = self.transparency = b""
        self.header_intact = True
        self.whole = False
        self.exif = self.xmp = b""
        self.pieces: list[memoryview] = []  # of the pixel data
        view, position = memoryview(content), len(MAGIC)
        for _ in range(_MOST_CHUNKS):
            if position + _HEAD.size > len(content):
                break
            length, kind = _HEAD.unpack_from(content, position)
            end = position + _HEAD.size + length
            if kind == b"IEND" or not kind.isalpha():
                self.whole = kind == b"IEND"
                break
            if kind == b"IDAT":
                self.pieces.append(view[position + _HEAD.size : end])
            elif kind in _KNOWN:
                self._take(kind, content[position + _HEAD.size : end], content[end : end + 4])
            position = end + 4
        else:
            raise damaged_picture("the picture has too many chunks")

    @property
    def data(self) -> bytes:
        """The whole deflate stream: a copy."""
        return b"".join(self.pieces)

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
    """Keep header, palette, transparency and pixel data.

    A file of at most `max_pixels` pixels must have all its rows. `unchecked` of the result inflates them; a file that
    is small, truncated, interlaced or has a damaged header is inflated at once. If it is truncated and lacks few rows
    at its end, they become copies of the last row.

    Raises InvalidInput if rows are missing or the pixel data is damaged.
    """
    chunks = _Chunks(content)
    turned = orientation(chunks.exif, chunks.xmp)
    if len(chunks.header) != _IHDR.size:
        return Stripped((), turned)
    width, height, depth, colour, *_, interlaced = _IHDR.unpack(chunks.header)
    data: Sequence[bytes | memoryview] = chunks.pieces
    unchecked = None
    if 0 < width * height <= max_pixels and colour in _CHANNELS and any(data):
        rows = _Rows(width, height, depth * _CHANNELS[colour], bool(interlaced))
        if chunks.whole and chunks.header_intact and not interlaced and width * height > _SMALL:
            unchecked = partial(_check, content, rows)
        else:
            data = [rows.checked(chunks.data, whole=chunks.whole, exact=not chunks.header_intact)]
    elif not any(data):
        return Stripped((), turned)
    kept = [MAGIC, _chunk(b"IHDR", chunks.header)]
    if colour == 3:
        kept.append(_chunk(b"PLTE", chunks.palette[: len(chunks.palette) // 3 * 3][: 3 * 256]))
    if len(chunks.transparency) >= _TRANSPARENCY.get(colour, len(chunks.transparency) + 1):
        kept.append(_chunk(b"tRNS", chunks.transparency[:256]))
    pixels = [sum(map(len, data)).to_bytes(4), b"IDAT", *data, _UNUSED]
    return Stripped((b"".join([*kept, *pixels, _chunk(b"IEND", b"")]),), turned, unchecked)


def _check(content: bytes, rows: "_Rows") -> None:
    """Raise InvalidInput if the file lacks rows."""
    rows.checked(_Chunks(content).data, whole=True, exact=False)


class CheckedPng(PngImageFile):
    """A PNG file that raises InvalidInput if it is decoded and lacks rows.

    Pillow does not report a deflate stream that ends early. It leaves the rows that are missing at 0: if the last row
    is not, no row is missing, and the stream need not be inflated a second time.
    """

    def __init__(self, content: bytes, check: Callable[[], object]) -> None:
        super().__init__(io.BytesIO(content))
        self._check: Callable[[], object] | None = check

    def load(self) -> "_imaging.PixelAccess | None":
        """Decode the pixels. Raises InvalidInput if some are missing or damaged."""
        check, self._check = self._check, None
        try:
            access = super().load()
        except (OSError, SyntaxError):
            if check is not None:
                check()  # counts the rows that are there
            raise
        if check is not None and not self._has_last_row():
            check()
        return access

    def _has_last_row(self) -> bool:
        last = self.crop((0, self.height - 1, self.width, self.height))
        return last.getbbox(alpha_only=False) is not None


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
