"""Error statuses of the Open Inference Protocol."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.entries import MAX_SAMPLES
from service.web.multipart import MAX_FILES
from tests.fakes import LINE, save_line
from tests.openinference import LENGTH, LIMIT, SEVEN, binary_row, framed, is_error, row
from tests.serving import serving

NESTED = b"[" * 150 + b"]" * 150
DEEP_DATA = b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": ' + NESTED + b"}]}"
GZIP = {"content-encoding": "gzip"}
DEFLATE = {"content-encoding": "deflate"}
PIXELS = {"datatype": "UINT8", "shape": [1, 28, 28]}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(max_body_bytes=LIMIT) as client:
        yield client


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}, max_body_bytes=LIMIT, max_batch=8) as client:
        yield client


MANY = framed(*[b""] * (MAX_FILES + 1))
PICTURES = {"datatype": "BYTES", "shape": [1]}
MALFORMED: dict[str, tuple[Any, int, str]] = {
    "no body": ({"content": b""}, 400, "not valid JSON"),
    "half a JSON": ({"content": b'{"inputs"'}, 400, "not valid JSON"),
    "NaN in JSON": ({"content": b'{"inputs": [NaN]}'}, 400, "not valid JSON"),
    "a list": ({"json": []}, 400, "must be a JSON object"),
    "no inputs": ({"json": {}}, 400, "inputs must be a list"),
    "an input twice": ({"json": {"inputs": [row(1), row(1)]}}, 400, "twice"),
    "an unknown input": ({"json": {"inputs": [row(1, name="x")]}}, 400, "unknown input 'x'"),
    "an unknown output": ({"json": {"inputs": [row(1)], "outputs": [{"name": "x"}]}}, 400, "unknown output 'x'"),
    "10^5 outputs": ({"json": {"inputs": [row(1)], "outputs": [{"name": "output"}] * 5000}}, 400, "twice"),
    "another datatype": ({"json": {"inputs": [row(1, datatype="INT64")]}}, 400, "send FP32 of shape [-1, 1]"),
    "pictures for numbers": ({"json": {"inputs": [row(1, **PICTURES, data=["x"])]}}, 400, "send FP32"),
    "no shape": ({"json": {"inputs": [row(1, shape=None)]}}, 400, "shape must be"),
    "a negative shape": ({"json": {"inputs": [row(1, shape=[-1, 1])]}}, 400, "none of them negative"),
    "a fractional shape": ({"json": {"inputs": [row(1, shape=[1.5, 1])]}}, 400, "shape must be"),
    "a zero batch": ({"json": {"inputs": [row(1, shape=[0, 1], data=[])]}}, 400, "N at least 1"),
    "a zero dimension": ({"json": {"inputs": [row(1, shape=[1, 0], data=[])]}}, 400, "has shape [1, 0]"),
    "a shape that overflows": ({"json": {"inputs": [row(1, shape=[2**63 - 1, 2**31])]}}, 413, "at most"),
    "too many samples": ({"json": {"inputs": [row(1, shape=[MAX_SAMPLES + 1, 1])]}}, 413, "at most"),
    "too few numbers": ({"json": {"inputs": [row(1, shape=[2, 1])]}}, 400, "announced as [2, 1]"),
    "a text": ({"json": {"inputs": [row(1, data=["1"])]}}, 400, "float or int"),
    "a number out of range": ({"json": {"inputs": [row(1, 1e39)]}}, 400, "sample 1: every number must be finite"),
    "deep JSON": ({"content": b'{"inputs": ' + b"[" * 40_000 + b"]" * 40_000}, 400, "not valid JSON"),
    "JSON of depth 200": ({"content": b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}"}, 400, "inputs must be"),
    "deep data": ({"content": DEEP_DATA}, 400, "deeper than 100"),
    "a number as id": ({"json": {"id": 1, "inputs": [row(1)]}}, 400, "id must be a string"),
    "a reserved parameter": ({"json": {"inputs": [row(1)], "parameters": {"triton_a": 1}}}, 400, "reserved"),
    "a parameter of a wrong type": ({"json": {"inputs": [row(1)], "parameters": {"timeout": "1"}}}, 400, "of type int"),
    "shared memory": ({"json": {"inputs": [row(1, parameters={"shared_memory_region": "r"})]}}, 400, "not offered"),
    "data and a size": ({"json": {"inputs": [row(1, parameters={"binary_data_size": 4})]}}, 400, "either data or"),
    "a size without data": (binary_row(b"", size=4), 400, "the body has 0 left"),
    "too few bytes": (binary_row(bytes(3), size=4), 400, "announces 4 bytes, the body has 3"),
    "bytes left over": (binary_row(bytes(5), size=4), 400, "1 bytes are left over"),
    "a size that lies": (binary_row(bytes(8)), 400, "takes 4 bytes, not 8"),
    "a size of 2^62": (binary_row(bytes(4), size=2**62), 400, "announces"),
    "a negative size": (binary_row(bytes(4), size=-4), 400, "whole number of bytes"),
    "not a number, in binary": (binary_row(struct.pack("<f", float("nan"))), 400, "sample 0: every number must be"),
    "infinity, in binary": (binary_row(struct.pack("<f", float("inf"))), 400, "sample 0: every number must be"),
    "a negative header length": ({"json": {}, "headers": {LENGTH: "-1"}}, 400, LENGTH),
    "a header length in words": ({"json": {}, "headers": {LENGTH: "ten"}}, 400, LENGTH),
    "a header length beyond the body": ({"json": {}, "headers": {LENGTH: "3"}}, 400, "the body has 2 bytes"),
    "a header length beyond int32": ({"json": {}, "headers": {LENGTH: str(2**31)}}, 400, LENGTH),
    "a body above the limit": ({"content": b"x" * (LIMIT + 1)}, 413, f"{LIMIT} bytes"),
    "a length above the limit": ({"content": b"", "headers": {"content-length": "9" * 30}}, 413, f"{LIMIT} bytes"),
    "another coding": ({"content": b"x", "headers": {"content-encoding": "br"}}, 415, "gzip, deflate"),
    "no gzip": ({"content": b"xyz", "headers": GZIP}, 400, "no gzip stream"),
    "half a gzip": ({"content": gzip.compress(b"{}")[:-3], "headers": GZIP}, 400, "cut off"),
    "a gzip bomb": ({"content": gzip.compress(bytes(10_000_000)), "headers": GZIP}, 413, "unpacked"),
    "a deflate bomb": ({"content": zlib.compress(bytes(10_000_000)), "headers": DEFLATE}, 413, "unpacked"),
}


@pytest.mark.parametrize(("request_", "status", "words"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_request_is_a_clear_error(client: TestClient, request_: Any, status: int, words: str) -> None:
    assert is_error(client.post("/v2/models/regressor/infer", **request_), status, words)


BAD_PICTURES: dict[str, tuple[Any, int, str]] = {
    "no picture": (binary_row(framed(b"x"), **PICTURES), 400, "sample 0: the file cannot be read as a picture"),
    "half a picture": (binary_row(framed(SEVEN, SEVEN[:99]), **{**PICTURES, "shape": [2]}), 400, "sample 1: "),
    "none": (binary_row(b"", **{**PICTURES, "shape": [0]}), 400, "1 to 256 pictures"),
    "too many": (binary_row(MANY, **{**PICTURES, "shape": [MAX_FILES + 1]}), 413, "at most 256"),
    "framing that lies": (binary_row(framed(SEVEN)[:-1], **PICTURES), 400, "longer than the data"),
    "framing cut in the length": (binary_row(b"\1\0", **PICTURES), 400, "longer than the data"),
    "another count": (binary_row(framed(SEVEN, SEVEN), **PICTURES), 400, "more than the 1 elements"),
    "no base64": ({"json": {"inputs": [row(1, **PICTURES, data=["!"])]}}, 400, "must be base64"),
    "no ASCII": ({"json": {"inputs": [row(1, **PICTURES, data=["ü"])]}}, 400, "must be base64"),
    "a number among pixels": ({"json": {"inputs": [row(1, **PIXELS, data=[256] * 784)]}}, 400, "0..255"),
    "signed pixels": ({"json": {"inputs": [row(1, datatype="INT8")]}}, 400, "or BYTES of shape [-1]"),
}


@pytest.mark.parametrize(("request_", "status", "words"), BAD_PICTURES.values(), ids=list(BAD_PICTURES))
def test_a_malformed_picture_is_a_clear_error(client: TestClient, request_: Any, status: int, words: str) -> None:
    assert is_error(client.post("/v2/models/mnist/infer", **request_), status, words)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/nope/ready", 404),
        ("GET", "/v2/models/nope/config", 404),
        ("GET", "/v2/models/nope/stats", 404),
        ("POST", "/v2/models/nope/infer", 404),
        ("POST", "/v2/repository/models/nope/load", 404),
        ("POST", "/v2/repository/models/nope/unload", 404),
        ("GET", "/v2/models/line/versions/2", 404),
        ("GET", "/v2/models/line/versions/2/ready", 404),
        ("GET", "/v2/models/line/versions/2/stats", 404),
        ("GET", "/v2/models/line/versions/v1", 404),
        ("GET", "/v2/models/line/versions/99999999999999", 404),
        ("POST", "/v2/models/line/versions/²/infer", 404),
        ("GET", "/v2/nope", 404),
        ("GET", "/v2/models/..%2f..%2fline", 404),
        ("POST", "/v2", 405),
        ("GET", "/v2/models/line/infer", 405),
        ("DELETE", "/v2/models/line", 405),
    ],
)
def test_unknown_names_and_paths_are_clear_errors(line: TestClient, method: str, path: str, status: int) -> None:
    assert is_error(line.request(method, path), status)
