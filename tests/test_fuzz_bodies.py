"""Any bytes, and valid bodies with something changed: entries or InvalidInput, never another error.

`make fuzz` tries other ones, for as long as it is told to.
"""

import asyncio
import io
import json
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image

from models.entries import Entries, from_json, from_npy
from models.errors import InvalidInput
from models.handwriting.normalise import read_digit
from models.mnist import SPEC, drawn_seven
from models.pictures import PICTURE_FORMATS, open_picture
from models.spec import Entry
from service.api.bodies import RequestBodies
from service.errors import Malformed, TooLarge
from service.execution.threads import Threads
from service.inference.decoding import Decoder, Samples
from tests.serving import npy, png

POINT = Entry(shape=(2,), dtype=np.dtype(np.float32))
PIXELS = Entry(shape=(2, 2), dtype=np.dtype(np.uint8), low=0, high=255)
ENTRIES = st.sampled_from([POINT, PIXELS])
MAX_PIXELS = 100_000
SEVEN = png(drawn_seven())
PICTURES = [
    png(array, kind)
    for array in (drawn_seven(), np.stack([np.kron(255 - drawn_seven(), np.ones((2, 3), np.uint8))] * 3, axis=-1))
    for kind in PICTURE_FORMATS.values()
]


def mutated(body: bytes) -> st.SearchStrategy[bytes]:
    """`body` with some bytes replaced, a piece cut out and a piece put in."""

    def change(changes: list[tuple[int, int]], cut: tuple[int, int], piece: bytes) -> bytes:
        content = bytearray(body)
        for place, byte in changes:
            content[place] = byte
        content[cut[0] : cut[0] + cut[1]] = piece
        return bytes(content)

    place = st.integers(0, len(body) - 1)
    changes = st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)
    return st.builds(change, changes, st.tuples(place, st.integers(0, 8)), st.binary(max_size=8))


def check(decode: Callable[[bytes, Entry], Entries], content: bytes, entry: Entry) -> None:
    """Assert that each result is an entry of the declared shape and dtype, or an error."""
    try:
        entries = decode(content, entry)
    except InvalidInput:
        return
    assert entries.good.shape[1:] == entry.shape
    assert entries.good.dtype == entry.dtype
    assert np.all((entries.good >= entry.low) & (entries.good <= entry.high))
    assert set(entries.errors) <= set(range(len(entries)))
    assert len(entries) > 0


numbers = st.integers(-(2**64), 2**65) | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
values = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
)
points = st.lists(st.lists(st.floats(-2, 2) | numbers, min_size=2, max_size=2), min_size=1, max_size=4)


def json_bytes(value: Any) -> bytes:
    """As Python writes it, so that NaN and whole numbers beyond 64 bits are there."""
    return json.dumps({"inputs": value}).encode()


VALID_JSON = b'{"inputs": [[1, 2.5], [3, 4e300]]}'


@given(st.binary() | mutated(VALID_JSON) | (values | points).map(json_bytes), ENTRIES)
@example(b'{"inputs": [[1, 18446744073709551616]]}', POINT)
def test_any_json_is_entries_or_invalid(content: bytes, entry: Entry) -> None:
    check(from_json, content, entry)


odd_dtypes = [np.dtype([("a", "f4")]), np.dtype([("a", "f4"), ("b", "i2")])]
dtypes = scalar_dtypes() | st.sampled_from(odd_dtypes)
array_files = dtypes.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, min_side=0, max_side=3))).map(npy)


@given(
    st.binary()
    | array_files
    | mutated(npy(np.ones((3, 2), np.float32)))
    | mutated(npy(np.ones((3, 2, 2), np.uint8)))
    | mutated(npy(np.ones((3, 2), np.float32))[:128]),
    ENTRIES,
)
def test_any_npy_is_entries_or_invalid(content: bytes, entry: Entry) -> None:
    check(from_npy, content, entry)


@given(st.binary() | st.sampled_from(PICTURES).flatmap(mutated))
def test_any_picture_is_a_digit_or_invalid(content: bytes) -> None:
    try:
        digit = read_digit(open_picture(content, MAX_PIXELS))
    except InvalidInput:
        return
    assert digit.shape == (28, 28)
    assert digit.dtype == np.uint8
    assert digit.any()


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"]),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.binary(min_size=1),
    st.sampled_from(sorted(PICTURE_FORMATS.values())),
    st.integers(0, 20),
)
def test_a_picture_of_any_mode_and_size_is_a_digit_or_invalid(
    mode: str,
    size: tuple[int, int],
    pattern: bytes,
    kind: str,
    orientation: int,
) -> None:
    picture = Image.new(mode, size)
    length = len(picture.tobytes())
    picture.frombytes((pattern * (length // len(pattern) + 1))[:length])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    try:
        picture.save(file, kind, exif=exif)
    except (OSError, ValueError):  # the format has no such mode
        picture.convert("RGB").save(file, kind, exif=exif)
    with suppress(InvalidInput):
        assert read_digit(open_picture(file.getvalue(), MAX_PIXELS)).shape == (28, 28)


def form(boundary: str, *parts: bytes) -> bytes:
    """A multipart body of pictures."""
    head = b'Content-Disposition: form-data; name="a"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    return b"".join(b"--%s\r\n%s%s\r\n" % (boundary.encode(), head, part) for part in parts) + (
        b"--%s--\r\n" % boundary.encode()
    )


def read_form(content: bytes, boundary: str) -> Samples:
    """Parse a multipart body as the service does."""
    headers = [(b"content-type", b"multipart/form-data" + boundary.encode("latin-1"))]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    with closing(Threads()) as threads:
        bodies = RequestBodies(1_000_000, 1_000_000, Decoder(MAX_PIXELS, threads), threads)
        return asyncio.run(bodies.samples({"type": "http", "headers": headers}, receive, SPEC))


BOUNDARIES = ["; boundary=b", "", '; boundary="b"', "; boundary=", "; boundary=\xff", "; charset=x; boundary=b"]


@given(
    content=st.binary() | mutated(form("b", SEVEN, b"x", SEVEN)) | mutated(form("b", SEVEN)[:200]),
    boundary=st.sampled_from(BOUNDARIES),
)
def test_any_form_is_samples_or_a_clear_error(content: bytes, boundary: str) -> None:
    try:
        samples = read_form(content, boundary)
    except (InvalidInput, Malformed, TooLarge):
        return
    assert samples.good.shape[1:] == (1, 28, 28)
    assert samples.count == len(samples.good) + len(samples.errors)


@pytest.mark.parametrize("missing", [4, 6, 20, 150])
def test_a_form_that_is_cut_off_is_not_taken_for_a_shorter_one(missing: int) -> None:
    with pytest.raises(Malformed, match="last boundary"):
        read_form(form("b", SEVEN, SEVEN)[:-missing], "; boundary=b")
    assert read_form(form("b", SEVEN, SEVEN), "; boundary=b").count == 2


@pytest.mark.parametrize("content", PICTURES, ids=range(len(PICTURES)))
def test_the_pictures_that_are_changed_are_good_ones(content: bytes) -> None:
    assert read_digit(open_picture(content, MAX_PIXELS)).any()
