"""Hostile requests, each with the statuses that may answer it."""

import io
import re
import struct
import tarfile
import zlib
from functools import cache

import numpy as np
from PIL import Image

from benchmarks.floods import FORM, JSON, Hostile, post
from models.mnist import drawn_seven
from tests.serving import npy, png

NPY = "application/x-npy"
SEVEN = png(drawn_seven())
INSIDE = re.compile(  # what no error may show
    r"Traceback|File \\?\"|0x[0-9a-f]{6,}|<class|\bpid\b|/(work|home|usr|tmp|root)/|\.py\b",
)


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG file that says of itself to be so large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + pixels


@cache
def zeros(size: int) -> bytes:
    """`size` zero bytes, deflated."""
    deflate = zlib.compressobj(9)
    return b"".join(deflate.compress(bytes(2**20)) for _ in range(size >> 20)) + deflate.flush()


def npy_of(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    """A .npy file whose header says so."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def tar(name: str, size: int) -> bytes:
    """A tar archive of one member whose header says so."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def heads() -> list[Hostile]:
    """Heads and framing."""
    large, many = [b"A: " + b"x" * 1_000_000], [b"a:b"] * 1000
    return [
        Hostile("one large header", "/predict/mnist", large, b"", {431}),
        Hostile("an endless header", "/predict/mnist", [b"A: " + b"x" * 30_000_000], b"", {431}),
        Hostile("a thousand headers", "/predict/mnist", many, b"", {431}),
        Hostile("a million headers", "/predict/mnist", many * 1000, b"", {431}),
        Hostile("an endless path", "/predict/" + "x" * 10_000_000, [], b"", {431}),
        Hostile("both lengths", "/predict/mnist", [b"Content-Length: 1", b"Transfer-Encoding: chunked"], b"", {400}),
        Hostile("two lengths", "/predict/mnist", [b"Content-Length: 1", b"Content-Length: 2"], b"", {400}),
        Hostile("no length", "/predict/mnist", [b"Content-Length: -1"], b"", {400}),
        Hostile("a chunk that lies", "/predict/mnist", [b"Transfer-Encoding: chunked"], b"2\r\nabX", {400}),
        Hostile("a huge chunk", "/predict/mnist", [b"Transfer-Encoding: chunked"], b"f" * 17 + b"\r\n", {400}),
        Hostile("an extension", "/predict/mnist", [b"Transfer-Encoding: chunked"], b"1;" + b"x" * 9_000_000, {431}),
        Hostile("a trailer", "/predict/mnist", [b"Transfer-Encoding: chunked"], b"0\r\nA:" + b"x" * 9_000_000, {431}),
        Hostile("a declared terabyte", "/predict/mnist", [b"Content-Length: 1099511627776"], b"", {413}),
        Hostile("a declared 10^30", "/predict/mnist", [b"Content-Length: 1" + b"0" * 30], b"", {400}),
        Hostile("a million chunks", "/predict/mnist", [], (b"x" for _ in range(1_000_000)), {422}),
        Hostile("endless chunks", "/predict/mnist", [], (b"x" * 2**20 for _ in range(40)), {413}),
        Hostile("endless to train", "/train", [b"Content-Type: application/json"], (b" " * 2**20,) * 40, {413}),
        Hostile("endless to upload", "/models/mnist/versions", [], (b"x" * 2**20 for _ in range(40)), {413}),
        Hostile("a bundle that leads out", "/models/mnist/versions", [], tar("../../x.pt", 5), {422}),
        Hostile("a petabyte in a bundle", "/models/mnist/versions", [], tar("x.json", 10**15), {422}),
    ]


def pictures() -> list[Hostile]:
    """Yield decompression bombs, false headers and truncated pictures."""
    kinds = {kind: png(drawn_seven(), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
    jpeg = bytearray(kinds["JPEG"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    text = chunk(b"zTXt", b"a\0\0" + zeros(2**28))
    texts = b"".join(chunk(b"zTXt", b"a\0\0" + zeros(2**20 - 1)) for _ in range(100))
    return [
        post("png of 10^10 pixels", "image/png", png_of(100_000, 100_000), 422),
        post("png of 2^62 pixels", "image/png", png_of(2**31 - 1, 2**31 - 1), 422),
        post("png between the limits", "image/png", png_of(10_000, 10_000), 422),
        post("png of a million rows", "image/png", png_of(1, 20_000_000, zeros(2**25)), 422),
        post("png of no pixel", "image/png", png_of(0, 0), 422),
        post("png bomb", "image/png", png_of(5000, 5000, zeros(2**25)), 422),
        post("png with endless data", "image/png", png_of(28, 28, zeros(2**30)), 422),
        post("png with a text bomb", "image/png", png_of(28, 28, zeros(2**20), text), 422),
        post("png with a hundred texts", "image/png", png_of(28, 28, zeros(2**20), texts), 422),
        post("png with a profile bomb", "image/png", png_of(28, 28, b"", chunk(b"iCCP", b"a\0\0" + zeros(2**28))), 422),
        post("jpeg of 65500 x 65500", "image/jpeg", bytes(jpeg), 422),
        post("gif of 65535 x 65535", "image/gif", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",", 422),
        post("bmp of 2^31 rows", "image/bmp", kinds["BMP"][:18] + b"\xff\xff\xff\x7f" * 2 + kinds["BMP"][26:], 422),
        *[post(f"half a {k}", "", c[: len(c) * 2 // 3], 200 if k == "GIF" else 422, 422) for k, c in kinds.items()],
        *[post(f"a {kind}", "application/octet-stream", other(kind), 422) for kind in ("TIFF", "ICO", "PPM")],
        post("fits", "", b"SIMPLE  =                    T" + bytes(2880), 422),
        post("svg", "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        post("a name for a picture", JSON, b'{"inputs": ["http://127.0.0.1:1/x.png"]}', 422),
    ]


def other(kind: str) -> bytes:
    """A picture in a format that is not taken."""
    file = io.BytesIO()
    Image.new("L", (28, 28)).save(file, kind)
    return file.getvalue()


def arrays() -> list[Hostile]:
    """Yield .npy files with false headers."""
    largest = 2**63 - 1
    shapes = [f"({largest},)", "(2147483648, 2147483648)", "(-1, 28, 28)", "(4294967296, 4294967296, 28)", "(1e9,)"]
    wrong = [post(f"npy of shape {shape}", NPY, npy_of(shape), 400) for shape in shapes]
    pickled = b"\x80\x04cposix\nsystem\n(S'id'\ntR."
    return [
        *wrong,
        post("npy of no sample", NPY, npy_of("(0, 28, 28)", "'|u1'"), 422),
        post("npy of no shape", NPY, npy_of("()", data=bytes(4)), 422),
        post("npy of no size", NPY, npy_of("(9223372036854775807,)", "'|V0'"), 400),
        post("npy of objects", NPY, npy_of("(1,)", "'|O'", pickled), 422),
        post("npy of records", NPY, npy_of("(1,)", "[('a', '<f4', (1000000000,))]"), 400),
        post("npy with a deep header", NPY, npy_of("(" * 4000), 400),
        post("npy with a header of 4 GB", NPY, b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", 400),
        post("npy that is code", NPY, npy_of("__import__('os').abort()"), 400),
        post("npz", NPY, zipped(npy(np.zeros((1, 28, 28), np.uint8))), 400),
        post("npy of NaN", NPY, npy(np.full((1, 1), np.nan)), 422, path="/predict/regressor"),
        post("npy of infinity", NPY, npy(np.full((9, 1), np.inf, np.float32)), 422, path="/predict/regressor"),
        post("npy of 65536 samples", NPY, npy(np.zeros((65_536, 1), np.float32)), 413, path="/predict/regressor"),
    ]


def zipped(content: bytes) -> bytes:
    """An .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, content)
    return file.getvalue()


def texts() -> list[Hostile]:
    """JSON."""
    deep = b"[" * 100_000 + b"]" * 100_000
    path = "/predict/regressor"
    long = [(b"[],", 413), (b"{},", 413), (b'"aa",', 413), (b"1.5,", 413), (b"[0],", 413), (b"[[[[[[[[]]]]]]]],", 413)]
    filled = [(item, b'{"inputs": [' + item * (15_000_000 // len(item)) + b"0]}", status) for item, status in long]
    return [
        post("100,000 levels", JSON, deep, 400),
        post("100,000 levels of inputs", JSON, b'{"inputs": ' + deep + b"}", 400),
        post("1000 levels", JSON, b'{"inputs": ' + b"[" * 1000 + b"]" * 1000 + b"}", 422),
        post("100,000 levels of objects", JSON, b'{"a":' * 100_000, 400),
        post("100,000 levels to train", JSON, deep, 400, 422, path="/train"),
        post("100,000 levels to promote", JSON, deep, 400, 422, path="/models/mnist/promote"),
        *[post(f"{word[:9]} is no JSON", JSON, b'{"inputs": [[%s]]}' % word.encode(), 400, 422, path=path)
          for word in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 100_000, "1" + "0" * 4000, "0x10")],
        *[post(f"15 MB of {item.decode()}", JSON, body, status) for item, body, status in filled],
        post("a string of 15 MB", JSON, b'{"inputs": ["' + b"x" * 15_000_000 + b'"]}', 422),
        post("texts among numbers", JSON, b'{"inputs": [["%s"%s]]}' % (b"x" * 10_000, b",0" * 10_000), 422, path=path),
        post("a sample of 15 MB", JSON, b'{"inputs": [[0%s]]}' % (b",0" * 7_000_000), 422, path=path),
        post("UTF-8 that is none", JSON, b'{"inputs": [["\xff\xfe"]]}', 400),
        post("a deflated body", f"{JSON}\r\nContent-Encoding: gzip", zlib.compress(b'{"inputs": [[0]]}'), 400),
        post("a pickle", "application/x-pickle", b"\x80\x04cposix\nsystem\n(S'id'\ntR.", 415),
        post("a pickle that says JSON", JSON, b"\x80\x04cposix\nsystem\n(S'id'\ntR.", 400),
    ]  # fmt: skip


def forms() -> list[Hostile]:
    """Multipart and urlencoded bodies."""
    disposition = b'Content-Disposition: form-data; name="a"; filename="x"\r\n'
    empty = b"--x\r\n" + disposition + b"\r\n\r\n"
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    boundary = "multipart/form-data; boundary=" + "x" * 50_000
    return [
        post("200,000 files", FORM, empty * 200_000 + b"--x--", 413),
        post("200,000 fields", FORM, (field + b"\r\n") * 200_000 + b"--x--", 413),
        post("one field of 15 MB", FORM, field + b"x" * 15_000_000 + b"\r\n--x--", 422),
        post("one part header of 15 MB", FORM, b"--x\r\nA: " + b"x" * 15_000_000, 400),
        post("a million part headers", FORM, b"--x\r\n" + b"A: b\r\n" * 1_000_000, 400),
        post("15 MB before the form", FORM, b"x" * 15_000_000, 400),
        post("15 MB after the form", FORM, empty + b"--x--" + b"x" * 15_000_000, 400, 422),
        post("15 MB of almost the boundary", FORM, empty + b"\r\n--" * 3_500_000, 400, 422),
        post("a long boundary", boundary, b"--x", 400),
        post("no boundary", "multipart/form-data", b"--x", 400),
        post("an unending form", FORM, empty, 400, 422),
        post("a file name that is a path", FORM, empty.replace(b'"x"', b'"../../../etc/x\\0"') + b"--x--", 422),
        post("a million fields", "application/x-www-form-urlencoded", b"a=b&" * 1_000_000, 415),
        post("a million fields to train", "application/x-www-form-urlencoded", b"a=b&" * 200_000, 415, path="/train"),
    ]


def all_of_them() -> list[Hostile]:
    """The whole list."""
    return [*heads(), *pictures(), *arrays(), *texts(), *forms()]
