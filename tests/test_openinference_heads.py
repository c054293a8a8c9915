"""Remembered heads of infer requests are read as the first time."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TooManySamples
from service.api.openinference.codec import Heads, Inference, parse
from service.api.openinference.tensors import BYTES, TensorType
from service.errors import Malformed

ACCEPTED = {"input": [TensorType("input", "FP32", (-1, 2)), TensorType("input", BYTES, (-1,))]}
ROWS = np.array([[1, 2], [3, 4]], "<f4")
always_the_same = settings(derandomize=True, deadline=None, database=None)
FORMS = st.sampled_from([("FP32", [2, 2]), ("FP32", [2, 3]), ("BYTES", [1]), ("FP32", [0, 2]), ("INT8", [1])])
SIZES = st.sampled_from([16, 0, 7, 17, -1, "16", True, None])
TAILS = st.sampled_from([ROWS.tobytes(), b"", b"\3\0\0\0abc", b"\3\0\0\0ab", ROWS.tobytes() + b"x", b"1234567"])
EXTRAS = st.sampled_from(
    [{}, {"id": "a"}, {"parameters": {"timeout": 5, "binary_data_output": True}}, {"outputs": [{}]}]
)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP32", "shape": [2, 2], **changes}


def outcome(parsed: Callable[[], Inference]) -> Any:
    try:
        found = parsed()
    except (Malformed, TooManySamples) as err:
        return type(err), str(err)
    inputs = [(name, one.type, one.binary, one.data.shape, one.data.tolist()) for name, one in found.inputs.items()]
    return found.id, found.timeout_s, found.outputs, inputs


@always_the_same
@given(st.lists(st.tuples(FORMS, SIZES, EXTRAS, TAILS, st.sampled_from([None, "0", "x", "9999"])), max_size=12))
def test_a_remembered_head_is_read_as_the_first_time(asked: list[Any]) -> None:
    heads = Heads(ACCEPTED, ["output"])
    first = {"inputs": [tensor(parameters={"binary_data_size": 16})]}
    bodies = [(json.dumps(first).encode(), ROWS.tobytes(), None), (json.dumps(first).encode(), b"short", None)]
    for (datatype, shape), size, extra, tail, header in asked:
        changes: dict[str, Any] = {"data": [1, 2, 3, 4]} if size is None else {"parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor(datatype=datatype, shape=shape, **changes)], **extra}).encode()
        bodies.append((head, tail, header))
    for head, tail, header in bodies * 2:
        length = header or str(len(head))
        expected = outcome(partial(parse, head + tail, length, ACCEPTED, ["output"]))
        assert outcome(partial(heads.parse, head + tail, length)) == expected


def test_only_the_data_of_a_remembered_head_is_read_again() -> None:
    head = json.dumps({"inputs": [tensor(parameters={"binary_data_size": 16})]}).encode()
    heads = Heads(ACCEPTED, ["output"])
    one, other = (heads.parse(head + rows.tobytes(), str(len(head))) for rows in (ROWS, ROWS + 1))
    assert one.outputs is other.outputs
    np.testing.assert_array_equal(one.inputs["input"].data, ROWS)
    np.testing.assert_array_equal(other.inputs["input"].data, ROWS + 1)
