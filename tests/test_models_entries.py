import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from models.entries import MAX_SAMPLES, from_json, from_npy
from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.pictures import open_picture
from models.spec import Entry

POINT = Entry(shape=(2,), dtype=np.dtype(np.float32))
PIXELS = Entry(shape=(2, 2), dtype=np.dtype(np.uint8), low=0, high=255)


def body(inputs: Any) -> bytes:
    return orjson.dumps({"inputs": inputs})


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_json_rows_become_entries_of_the_declared_dtype() -> None:
    entries = from_json(body([[1, 2.5], [3, 4]]), POINT)
    assert entries.good.tolist() == [[1, 2.5], [3, 4]]
    assert entries.good.dtype == np.float32
    assert from_json(body([[[0, 254.6], [3, 255]]]), PIXELS).good.tolist() == [[[0, 255], [3, 255]]]


BAD_SAMPLES: list[Any] = [
    "x",
    None,
    True,
    [1],
    [1, 2, 3],
    [1, "2"],
    [1, None],
    [[1, 2]],
    [True, 2],
    {},
    [1, 1e300],
    [[]],
    [],
]


@pytest.mark.parametrize("bad", BAD_SAMPLES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_bad_sample_fails_alone(bad: Any, position: int) -> None:
    inputs = [[1, 2], [3, 4]]
    entries = from_json(body([*inputs[:position], bad, *inputs[position:]]), POINT)
    assert entries.good.tolist() == inputs
    assert list(entries.errors) == [position]
    assert len(entries) == 3


@pytest.mark.parametrize("number", [-1, 256, 255.6, 1e39])
def test_a_number_out_of_bounds_names_the_bounds(number: float) -> None:
    entries = from_json(body([[[number, 1], [2, 3]]]), PIXELS)
    assert "between 0 and 255" in entries.errors[0].detail


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"inputs": [NaN]}', b"[" * 100_000, b'{"inputs":' * 5000])
def test_what_is_no_json_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedInput, match="JSON"):
        from_json(content, POINT)


@pytest.mark.parametrize(
    "value",
    [[], {}, {"inputs": []}, {"inputs": 3}, {"inputs": {}}, {"inputs": [[1, 2]], "x": 1}, None],
)
def test_a_json_body_of_another_form_says_what_to_send(value: Any) -> None:
    with pytest.raises(InvalidInput, match="inputs"):
        from_json(orjson.dumps(value), POINT)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i4", "<u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_real_dtype_and_order_becomes_float32(dtype: str, order: Any) -> None:
    array = np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype, order=order)
    entries = from_npy(npy(array), POINT)
    assert entries.good.tolist() == array.tolist()
    assert entries.good.dtype == np.float32


def test_npy_rows_that_are_not_finite_fail_alone() -> None:
    entries = from_npy(npy(np.array([[1, 2], [np.nan, 0], [np.inf, 0], [3, 4]])), POINT)
    assert entries.good.tolist() == [[1, 2], [3, 4]]
    assert list(entries.errors) == [1, 2]


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 3)), "shape"),
        (np.zeros(2), "shape"),
        (np.float32(1), "shape"),
        (np.zeros((0, 2)), "shape"),
        (np.zeros((1, 2), dtype=complex), "complex"),
        (np.zeros((1, 2), dtype=bool), "bool"),
        (np.array([["a", "b"]]), "str"),
        (np.array([[1, None]], dtype=object), "Python objects"),
        (np.zeros((1, 2), dtype=[("a", "f4")]), "void"),
    ],
)
def test_npy_of_another_kind_says_what_to_send(array: Any, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        from_npy(npy(array), POINT)


def test_npy_pixels_must_be_uint8() -> None:
    assert from_npy(npy(np.full((1, 2, 2), 7, np.uint8)), PIXELS).good.tolist() == [[[7, 7], [7, 7]]]
    with pytest.raises(InvalidInput, match=r"float64.*multiply values from 0 to 1 by 255"):
        from_npy(npy(np.zeros((1, 2, 2))), PIXELS)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00\x10\x00",
        npy(np.zeros((4, 2)))[:-1],
        npy(np.zeros((4, 2))) + b"x",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2), }\n"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }\n"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999999), }\n")[:-3],
        header("{'descr': '<V0', 'fortran_order': False, 'shape': (5, 2), }\n"),
        header("__import__('os').system('true')\n"),
        header("(" * 3000),
        b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535,
        b"\x80\x04\x95",
    ],
)
def test_an_npy_file_with_a_false_header_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedInput):
        from_npy(content, POINT)


def test_too_many_samples_are_refused_before_they_are_looked_at() -> None:
    with pytest.raises(TooManySamples, match=str(MAX_SAMPLES)):
        from_json(body([0] * (MAX_SAMPLES + 1)), POINT)
    with pytest.raises(TooManySamples):
        from_npy(npy(np.zeros((MAX_SAMPLES + 1, 2), np.float32)), POINT)


def encoded(size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, 200).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif"])
def test_pictures_of_five_formats_are_opened(kind: str) -> None:
    assert open_picture(encoded((5, 4), kind), 100).size == (5, 4)


def test_s30_pixels_are_counted_before_they_are_decoded() -> None:
    with pytest.raises(InvalidInput, match="at most 399"):
        open_picture(encoded((20, 20), "png"), 399)


@pytest.mark.parametrize("kind", ["tiff", "ppm", "ico"])
def test_s30_other_formats_are_never_decoded(kind: str) -> None:
    with pytest.raises(InvalidInput, match="No picture"):
        open_picture(encoded((16, 16), kind), 1000)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff"])
def test_bytes_that_are_no_picture_say_so(content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"picture"):
        open_picture(content, 1000)


@pytest.mark.many
@pytest.mark.parametrize("inputs", [["x" * 200_000, *[1] * 16_000], [["x" * 200_000, *[1] * 16_000]]])
def test_a_text_among_numbers_does_not_widen_them(inputs: Any) -> None:
    tracemalloc.start()
    try:
        entries = from_json(body(inputs), POINT)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000  # NumPy took 12 GB: 200,000 characters a number
    finally:
        tracemalloc.stop()
    assert len(entries.errors) == len(inputs)


def test_lists_as_deep_as_json_may_be_are_an_error_and_no_failure() -> None:
    deep = b"[" * 900 + b"true" + b"]" * 900
    assert from_json(b'{"inputs": [' + deep + b"]}", POINT).errors[0].title == "Wrong sample"


@pytest.mark.parametrize("array", [[[1.0, 2.0], [1.7, 0.0]], [[1, 2], [3.5, 4]]], ids=["floats", "mixed"])
def test_a_fraction_for_a_whole_number_fails_alone(array: Any) -> None:
    codes = Entry(shape=(2,), dtype=np.dtype(np.int64), low=0, high=9)
    for entries in (from_json(body(array), codes), from_npy(npy(np.array(array)), codes)):
        assert (entries.good.tolist(), entries.good.dtype) == ([[1, 2]], codes.dtype)
        assert entries.errors[1].detail == "every number must be whole"
