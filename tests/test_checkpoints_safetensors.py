"""Damaged and forged safetensors files: each is refused with the tensor and the reason, within bounds of memory."""

import json
import resource
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from models.checkpoints import safetensors_file
from models.checkpoints.state_dict import read_state
from models.errors import CheckpointError
from tests.each import each_holds

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F16", "shape": [1, 2], "data_offsets": [8, 12]}
GOOD = {"a": A, "b": B}
DATA = bytes(12)


def file_of(header: Any, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(**fields: Any) -> bytes:
    return file_of({"a": {**A, **fields}, "b": B})


CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "one name twice": (lambda: file_of(json.dumps(GOOD)[:-1].encode() + b', "a": ' + json.dumps(A).encode() + b"}"),
                       "it has 2 tensors named a"),
    "no object": (lambda: file_of(b"{]"), "its header is not a JSON object"),
    "deep": (lambda: file_of(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"), "not a JSON object"),
    "no JSON after it": (lambda: file_of(json.dumps(GOOD).encode() + b"\0\0"), "not a JSON object"),
    "incomplete": (lambda: file_of(GOOD, DATA[:-1]), "b ends at byte 12 of 11: the file is incomplete"),
    "more bytes": (lambda: file_of(GOOD, DATA + b"xx"), "b and the end have bytes between them that no tensor has"),
    "a gap": (lambda: file_of({"a": A, "b": {**B, "data_offsets": [9, 13]}}, bytes(13)), "a and b have bytes between"),
    "an overlap": (lambda: file_of({"a": A, "b": {**B, "data_offsets": [6, 10]}}, bytes(10)), "a and b overlap"),
    "offsets in the wrong order": (lambda: changed(data_offsets=[8, 0]), "a has -8 bytes"),
    "three offsets": (lambda: changed(data_offsets=[0, 4, 8]), "the data_offsets of a are not two whole numbers"),
    "an offset below 0": (lambda: changed(data_offsets=[-1, 7]), "the data_offsets of a are not two whole numbers"),
    "an offset of 2**64": (lambda: changed(data_offsets=[0, 2**64]), "the data_offsets of a are not two"),
    "a fraction": (lambda: changed(shape=[2.0]), "the shape of a is not a list of at most 64 whole numbers"),
    "many axes": (lambda: changed(shape=[2**62] * 100_000), "the shape of a is not a list of at most 64 whole"),
    "an overflow": (lambda: changed(shape=[2**62] * 64), "a has 8 bytes, which its shape .* of F32 does not take"),
    "another shape": (lambda: changed(shape=[3]), r"a has 8 bytes, which its shape \[3\] of F32 does not take"),
    "no shape": (lambda: file_of({"a": {"dtype": "F32"}, "b": B}), "a has no dtype, shape and data_offsets"),
    "a number": (lambda: file_of({"a": 1, "b": B}), "a has no dtype, shape and data_offsets"),
    "a dtype": (lambda: changed(dtype="F4_E2M1"), r"dtypes that cannot be read: a \(F4_E2M1\)"),
    "metadata": (lambda: file_of({**GOOD, "__metadata__": {"epochs": 3}}), "its __metadata__ is not an object of"),
    "a long name": (lambda: file_of({"n" * 100_000: {**A, "shape": [3]}, "b": B}), "which its shape"),
}  # fmt: skip


def _is_named(case: str) -> None:
    content, words = CASES[case]
    with pytest.raises(CheckpointError, match=words) as refused:
        read_state(content(), "it.safetensors")
    assert str(refused.value).startswith("it.safetensors")
    assert len(str(refused.value)) < 500


def test_what_is_wrong_with_a_file_is_named() -> None:
    each_holds(_is_named, CASES)


def test_files_that_are_whole_are_read() -> None:
    for header in (GOOD, {**GOOD, "__metadata__": {"format": "pt"}}, {**GOOD, "__metadata__": None}):
        assert sorted(read_state(file_of(header), "it")) == ["a", "b"]


@pytest.mark.parametrize(
    "header",
    [
        lambda: {f"t{number}": {**A, "shape": [0], "data_offsets": [0, 0]} for number in range(300_000)},
        lambda: {"__metadata__": {"a": "x" * 50_000_000}},
        lambda: {"x" * 5_000_000: A},
    ],
    ids=["many tensors", "metadata", "a name"],
)
def test_a_large_header_is_refused_before_it_is_parsed(header: Callable[[], Any]) -> None:
    content = file_of(header())
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="more than that of any state_dict"):
        read_state(content, "it")
    assert time.process_time() - begun < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000


def test_the_largest_header_that_is_parsed_takes_little_time_whatever_its_names() -> None:
    text = b"{" + b",".join(b'"%d":1' % number for number in range(380_000)) + b"}"
    content = file_of(text + b" " * (4 * 2**20 - len(text)))
    begun = time.process_time()
    safetensors_file.check(content, "it")
    with pytest.raises(CheckpointError, match="0 has no dtype"):
        read_state(content, "it")
    assert time.process_time() - begun < 10
