"""The Open Inference Protocol's codec, without HTTP and without a model."""

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.entries import MAX_SAMPLES
from models.errors import TooManySamples
from service.api.openinference.codec import Inference, Wanted, encode, json_object, parse
from service.api.openinference.tensors import (
    BYTES,
    DATATYPES,
    TensorType,
    classes,
    datatype_of,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
)
from service.errors import Malformed

PAIRS = TensorType("input", "FP32", (-1, 2))
WORDS = TensorType("input", BYTES, (-1,))
ACCEPTED = {"input": [PAIRS, WORDS]}
ROWS = np.array([[1, 2], [3, 4]], "<f4")
NUMERIC = sorted(DATATYPES)
always_the_same = settings(derandomize=True, deadline=None, database=None)


def tensor(**changes: Any) -> dict[str, Any]:
    """A good input, as JSON, with changes; None takes a field away."""
    good = {"name": "input", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def read(body: Any, header: str | None = None, tail: bytes = b"") -> Inference:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if tail and header is None:
        header = str(len(content))
    return parse(content + tail, header, ACCEPTED, ["output"])


def binary(size: Any, tail: bytes, **changes: Any) -> Inference:
    return read({"inputs": [tensor(data=None, parameters={"binary_data_size": size}, **changes)]}, tail=tail)


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[1.0, 2], [3, 4.0]]])
def test_json_data_may_be_flat_or_nested(data: Any) -> None:
    found = read({"id": "x", "inputs": [tensor(data=data)]})
    np.testing.assert_array_equal(found.inputs["input"].data, ROWS)
    assert found.inputs["input"].data.dtype == np.float32
    assert (found.id, found.timeout_s, found.outputs) == ("x", None, [Wanted("output", False)])


def test_booleans_are_no_whole_numbers_but_may_be_parameters() -> None:
    accepted = {"input": [TensorType("input", "UINT8", (-1,))]}

    def read_levels(data: list[Any], **parameters: bool) -> Inference:
        item = {"name": "input", "datatype": "UINT8", "shape": [2], "data": data}
        return parse(json.dumps({"inputs": [item], "parameters": parameters}).encode(), None, accepted, ["output"])

    assert read_levels([0, 255], binary_data_output=False).inputs["input"].data.tolist() == [0, 255]
    for data in ([True, 2], [2, False]):
        with pytest.raises(Malformed, match="int values alone"):
            read_levels(data)


def test_binary_data_follow_the_json() -> None:
    found = binary(16, ROWS.tobytes())
    np.testing.assert_array_equal(found.inputs["input"].data, ROWS)
    assert found.inputs["input"].binary


def test_the_raw_form_is_a_batch_of_one_answered_in_binary() -> None:
    found = read(b"", "0", ROWS[0].tobytes())
    np.testing.assert_array_equal(found.inputs["input"].data, ROWS[:1])
    assert found.outputs == [Wanted("output", True)]


@pytest.mark.parametrize(
    "types",
    [[PAIRS, TensorType("other", "FP32", (-1,))], [TensorType("input", "FP32", (-1, -1))]],
)
def test_the_raw_form_needs_one_input_with_one_variable_dimension(types: list[TensorType]) -> None:
    with pytest.raises(Malformed, match="raw form"):
        parse(bytes(8), "0", {kind.name: [kind] for kind in types}, ["output"])


def test_the_raw_form_of_bytes_is_the_one_element() -> None:
    found = parse(b"abc", "0", {"input": [WORDS]}, ["output"])
    assert found.inputs["input"].data.tolist() == [b"abc"]


@pytest.mark.parametrize("name", NUMERIC)
def test_every_datatype_goes_out_and_comes_back(name: str) -> None:
    dtype = DATATYPES[name]
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    kind = TensorType("x", name, (-1, 2))
    assert datatype_of(values.dtype) == datatype_of(values.dtype.newbyteorder(">")) == name
    np.testing.assert_array_equal(from_bytes(memoryview(to_bytes(values)), kind, (2, 2)), values)
    text = orjson.dumps(to_json(values.astype(dtype.newbyteorder("="))), option=orjson.OPT_SERIALIZE_NUMPY)
    if name == "FP16":
        with pytest.raises(Malformed, match="binary"):
            from_json([1], kind, (2, 2))
    else:
        np.testing.assert_array_equal(from_json(orjson.loads(text), kind, (2, 2)), values)


def test_bytes_go_out_and_come_back() -> None:
    words = np.array([b"", b"a", b"\x00\xff" * 300], dtype=object)
    back = from_bytes(memoryview(to_bytes(words)), WORDS, (3,))
    assert back.tolist() == words.tolist()
    assert datatype_of(words.dtype) == BYTES
    assert from_json(["a", "ü"], WORDS, (2,)).tolist() == [b"a", "ü".encode()]
    assert from_json([["a"], ["b"]], TensorType("x", BYTES, (-1, 1)), (2, 1)).tolist() == [[b"a"], [b"b"]]


def test_big_endian_values_go_out_little_endian() -> None:
    assert to_bytes(np.array([1], ">u4")) == b"\x01\0\0\0"


def test_data_that_are_not_aligned_are_moved() -> None:
    array = from_bytes(memoryview(b"x" + ROWS.tobytes())[1:], PAIRS, (2, 2))
    assert array.flags.aligned
    np.testing.assert_array_equal(array, ROWS)


def test_values_that_are_no_numbers_go_out_as_bare_words() -> None:
    values = np.array([[0.1, np.nan], [np.inf, -np.inf]], np.float32)
    content, size = encode("m", "1", "an id", "a prediction", [(Wanted("output", False), values)])
    assert size is None
    assert b"[0.1,NaN,Infinity,-Infinity]" in content
    answer = json.loads(content)
    assert (answer["id"], answer["parameters"]) == ("an id", {"prediction_id": "a prediction"})
    np.testing.assert_array_equal(np.array(answer["outputs"][0]["data"], np.float32), values.ravel())


def test_outputs_may_be_mixed_and_keep_their_order() -> None:
    wanted = [Wanted("a", True), Wanted("b", False), Wanted("c", True)]
    content, size = encode("m", "1", None, "a prediction", [(item, ROWS * place) for place, item in enumerate(wanted)])
    assert size is not None
    head, tail = json.loads(content[:size]), content[size:]
    assert [output["name"] for output in head["outputs"]] == ["a", "b", "c"]
    assert [("data" in output, output.get("parameters")) for output in head["outputs"]] == [
        (False, {"binary_data_size": 16}),
        (True, None),
        (False, {"binary_data_size": 16}),
    ]
    assert tail == bytes(16) + (ROWS * 2).tobytes()


def test_classes_are_the_greatest_first_and_no_more_than_there_are() -> None:
    values = np.array([[0.25, 0.5, 0.1]], np.float32)
    assert classes(values, 2).tolist() == [[b"0.5:1", b"0.25:0"]]
    assert classes(values, 9).tolist() == [[b"0.5:1", b"0.25:0", b"0.1:2"]]


def test_outputs_can_be_chosen_and_parameters_given() -> None:
    outputs = [{"name": "output", "parameters": {"binary_data": False, "classification": 2}}]
    parameters = {"binary_data_output": True, "timeout": 2_500_000, "priority": 3, "sequence_id": "a", "mine": 1.5}
    found = read({"inputs": [tensor()], "outputs": outputs, "parameters": parameters, "unknown": {"a": [1]}})
    assert found.outputs == [Wanted("output", False, 2)]
    assert found.timeout_s == 2.5
    assert read({"inputs": [tensor()], "outputs": [], "parameters": parameters}).outputs == [Wanted("output", True)]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD_INPUTS: list[tuple[Any, str]] = [
    (tensor(name="nope"), "unknown input 'nope'; there is input"),
    (tensor(name=None), "unknown input None"),
    (tensor(name=["input"]), "unknown input"),
    (tensor(name="x" * 10_000), "unknown input 'x{50,60}"),
    (tensor(datatype="FP64"), r"datatype 'FP64'; send FP32 of shape \[-1, 2\] or BYTES"),
    (tensor(datatype="FLOAT"), "datatype 'FLOAT'"),
    (tensor(datatype=None), "datatype None"),
    (tensor(datatype=nested(90)), "datatype"),
    (tensor(datatype=nested(300)), "deeper than 100"),
    (tensor(shape=None), "shape must be a list"),
    (tensor(shape=4), "shape must be a list"),
    (tensor(shape=[2.0, 2]), "shape must be a list"),
    (tensor(shape=[True, 2]), "shape must be a list"),
    (tensor(shape=["2", 2]), "shape must be a list"),
    (tensor(shape=[-1, 2]), "none of them negative"),
    (tensor(shape=[-2, -2]), "none of them negative"),
    (tensor(shape=[2**64, 2]), "shape must be a list"),
    (tensor(shape=[]), r"has shape \[\]"),
    (tensor(shape=[4]), r"has shape \[4\]; send FP32 of shape \[-1, 2\]"),
    (tensor(shape=[2, 2, 1]), "has shape"),
    (tensor(shape=[2] * 100_000), "has shape"),
    (tensor(shape=[1, 2]), r"data has shape \[4\], announced as \[1, 2\]"),
    (tensor(shape=[0, 2]), "data has shape"),
    (tensor(data=[[1, 2, 3, 4]]), "data has shape"),
    (tensor(data=[[1, 2], [3]]), "unevenly"),
    (tensor(data=[[1, 2], 3, 4]), "unevenly"),
    (tensor(data=[1, 2, 3, True]), "float or int"),
    (tensor(data=[1, 2, 3, "4"]), "float or int"),
    (tensor(data=[1, 2, 3, None]), "float or int"),
    (tensor(data=[1, 2, 3, {}]), "float or int"),
    (tensor(data=["x" * 100_000, *range(100_000)]), "float or int"),
    (tensor(data=nested(90)), "unevenly"),
    (tensor(data=nested(300)), "deeper than 100"),
    (tensor(data={}), "data must be a list"),
    (tensor(data=None), "either data or"),
    (tensor(data=7), "data must be a list"),
    (tensor(parameters={"binary_data_size": 16}), "either data or"),
    (tensor(parameters=[]), "must be an object"),
    (tensor(parameters={"a": None}), "must be an object"),
    (tensor(parameters={"shared_memory_region": "r"}), "not offered"),
    (tensor(datatype="BYTES", shape=[4]), "str values alone"),
    (tensor(datatype="BYTES", shape=[2], data=[["a"], "b"]), "unevenly"),
    (tensor(datatype="BYTES", shape=[2], data=["a"]), "data has shape"),
]


@pytest.mark.parametrize(("item", "words"), BAD_INPUTS)
def test_a_bad_input_is_a_clear_error(item: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words) as caught:
        read({"inputs": [item]})
    assert len(caught.value.detail) < 400


@pytest.mark.parametrize("has_booleans", [True, False])
def test_whole_numbers_are_not_rounded_and_not_wrapped(has_booleans: bool) -> None:
    kind = TensorType("x", "UINT8", (-1,))
    for data in ([256], [-1], [1.0], [1.5], [2**64 - 1, -1], ["1"], [None], ["7", 7]):
        with pytest.raises(Malformed, match=r"0\.\.255|int values"):
            from_json(data, kind, (len(data),), has_booleans=has_booleans)
    assert from_json([0, 255], kind, (2,), has_booleans=has_booleans).tolist() == [0, 255]
    assert from_json([2**64 - 1], TensorType("x", "UINT64", (-1,)), (1,)).tolist() == [2**64 - 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": None}, "inputs must be a list"),
        ({"inputs": {}}, "inputs must be a list"),
        ({"inputs": [1]}, "inputs must be a list"),
        ({"inputs": []}, "input 'input' is missing"),
        ({"inputs": [tensor(), tensor()]}, "is there twice"),
        ({"id": 7}, "id must be a string"),
        ({"outputs": {}}, "outputs must be a list"),
        ({"outputs": ["output"]}, "outputs must be a list"),
        ({"outputs": [{"name": "nope"}]}, "unknown output 'nope'; there is output"),
        ({"outputs": [{}]}, "unknown output None"),
        ({"outputs": [{"name": "output"}] * 100_000}, "requested twice"),
        ({"outputs": [{"name": "output", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"outputs": [{"name": "output", "parameters": {"classification": -1}}]}, "number of classes"),
        ({"outputs": [{"name": "output", "parameters": {"classification": True}}]}, "number of classes"),
        ({"outputs": [{"name": "output", "parameters": {"classification": 1.5}}]}, "number of classes"),
        ({"outputs": [{"name": "output", "parameters": {"shared_memory_region": "r"}}]}, "not offered"),
        ({"parameters": 1}, "must be an object"),
        ({"parameters": {"a": [1]}}, "must be an object"),
        ({"parameters": {"sequence_id": 1.5}}, "of type int or str"),
        ({"parameters": {"sequence_id": -1}}, "not negative"),
        ({"parameters": {"sequence_start": 1}}, "of type bool"),
        ({"parameters": {"sequence_end": "x"}}, "of type bool"),
        ({"parameters": {"priority": True}}, "of type int"),
        ({"parameters": {"timeout": "1"}}, "of type int"),
        ({"parameters": {"timeout": -1}}, "not negative"),
        ({"parameters": {"binary_data_output": 1}}, "of type bool"),
        ({"parameters": {"headers": "x"}}, "reserved"),
        ({"parameters": {"triton_x": "x"}}, "reserved"),
        ({"unknown": nested(200)}, "deeper than 100"),
    ],
)
def test_a_bad_request_is_a_clear_error(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read({"inputs": [tensor()], **changes})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"inputs": [NaN]}', b"[" * 100_000])
def test_what_is_no_json_object_is_a_clear_error(content: bytes) -> None:
    with pytest.raises(Malformed, match=r"not valid JSON|must be a JSON object"):
        read(content)
    with pytest.raises(Malformed):
        json_object(content)


@pytest.mark.parametrize(
    ("size", "tail", "words"),
    [
        (16, bytes(15), "announces 16 bytes, the body has 15 left"),
        (16, bytes(17), "1 bytes are left over"),
        (15, bytes(15), "takes 16 bytes, not 15"),
        (20, bytes(20), "takes 16 bytes, not 20"),
        (0, b"", "takes 16 bytes, not 0"),
        (2**62, bytes(16), "announces"),
        (-1, bytes(16), "whole number of bytes"),
        (16.0, bytes(16), "whole number of bytes"),
        (True, bytes(16), "whole number of bytes"),
        ("16", bytes(16), "whole number of bytes"),
    ],
)
def test_a_false_binary_length_is_a_clear_error(size: Any, tail: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        binary(size, tail)


def test_a_shape_of_more_samples_than_one_request_may_hold_is_refused_before_it_is_read() -> None:
    for count in (MAX_SAMPLES + 1, 2**31, 2**63 - 1, 2**64 - 1):
        with pytest.raises(TooManySamples):
            binary(16, bytes(16), shape=[count, 2])


def test_a_shape_whose_size_overflows_is_a_mismatch() -> None:
    kind = TensorType("x", "FP32", (-1, -1, -1))
    for shape in ((2**32, 2**32, 1), (2**63 - 1, 2**63 - 1, 2**63 - 1), (2**62, 4, 1)):
        with pytest.raises(Malformed, match="bytes, not 0"):
            from_bytes(memoryview(b""), kind, shape)


@pytest.mark.parametrize("header", ["-1", "+5", "x", "", "1.5", " 5", "99999", "99999999999999999999", "²", "0x10"])
def test_a_false_header_length_is_a_clear_error(header: str) -> None:
    with pytest.raises(Malformed, match="Inference-Header-Content-Length"):
        read({"inputs": [tensor()]}, header)


def test_a_header_length_in_the_middle_of_the_json_is_a_clear_error() -> None:
    with pytest.raises(Malformed, match="not valid JSON"):
        read({"inputs": [tensor()]}, "10")


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b"", "has 0 elements, its shape has 2"),
        (struct.pack("<I", 1) + b"a", "has 1 elements"),
        (struct.pack("<I", 1) + b"a\1", "element 1 is longer"),
        (struct.pack("<I", 2**32 - 1) + b"a", "element 0 is longer"),
        ((struct.pack("<I", 1) + b"a") * 3, "more than the 2 elements"),
    ],
)
def test_false_bytes_framing_is_a_clear_error(tail: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        binary(len(tail), tail, datatype="BYTES", shape=[2])


def test_a_bool_that_is_neither_is_refused() -> None:
    with pytest.raises(Malformed, match="0 or 1"):
        from_bytes(memoryview(b"\2"), TensorType("x", "BOOL", (-1,)), (1,))


scalars = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3))
fields = st.sampled_from(["FP32", "BYTES", "input", "output", "FP16", [2, 2], [1, 2], [0, 2], [2], [1], 16, 8, 0])
changes = st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), fields | trees)
heads = st.fixed_dictionaries(
    {"inputs": st.lists(changes.map(lambda c: tensor(**c)), max_size=2) | trees},
    optional={"id": trees, "outputs": trees, "parameters": trees},
)


@always_the_same
@given(head=heads, tail=st.binary(max_size=20), header=st.none() | st.integers(-1, 300).map(str) | st.just("good"))
def test_any_request_is_read_or_refused(head: Any, tail: bytes, header: str | None) -> None:
    content = json.dumps(head).encode()
    try:
        found = parse(content + tail, str(len(content)) if header == "good" else header, ACCEPTED, ["output"])
    except (Malformed, TooManySamples):
        return
    array = found.inputs["input"].data
    assert array.dtype == (np.float32 if found.inputs["input"].type is PAIRS else object)
    assert array.ndim == len(found.inputs["input"].type.shape)


@always_the_same
@given(body=st.binary(max_size=200), header=st.none() | st.text(max_size=4) | st.integers(0, 50).map(str))
def test_any_bytes_are_read_or_refused(body: bytes, header: str | None) -> None:
    try:
        parse(body, header, ACCEPTED, ["output"])
    except (Malformed, TooManySamples):
        return


@always_the_same
@given(items=st.lists(st.binary(max_size=9), max_size=5), cut=st.integers(0, 60))
def test_framed_bytes_are_read_whole_or_refused(items: list[bytes], cut: int) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    data = to_bytes(array)
    if cut >= len(data):
        assert from_bytes(memoryview(data), WORDS, (len(items),)).tolist() == items
    else:
        with pytest.raises(Malformed):
            from_bytes(memoryview(data)[:cut], WORDS, (len(items),))
