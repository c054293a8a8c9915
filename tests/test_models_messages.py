"""Codec of orders and messages."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.location import DatasetFile, StoreLocation
from models.checkpoints.record import Record
from models.messages import (
    Adopt,
    Adopted,
    AnyOrder,
    DatasetOptions,
    DatasetSummary,
    Evaluate,
    Evaluated,
    Explain,
    Explained,
    Export,
    ExportDone,
    Failed,
    FailureKind,
    Fit,
    Fitted,
    Ingest,
    Ingested,
    Message,
    Progress,
    Progressed,
    RefusalReason,
    RefusedRow,
    decode_message,
    decode_order,
    encode_message,
    encode_order,
)
from models.samples import Columns

HERE = Path("/store/x.pt")
RECORD = Record(model="m", sha256="0", arguments={"size": [1, 2]}, config={"lr": 0.1}, metrics={"mse": 0.5})
FIELD = DatasetFile(label="field@4", sha256="1", folder=HERE)
SUMMARY = DatasetSummary(
    format="csv",
    schema={"age": {"kind": "number"}},
    examples={"train": 8, "validation": 1, "test": 1},
    by_label={"yes": {"train": 8, "validation": 1, "test": 1}},
    rows=12,
    rejected=1,
    duplicates=1,
    conflicting_labels=0,
    added=10,
    by_reason=(
        RefusalReason(title="t", rows=1, first=(RefusedRow(row=3, column="age", value="x", detail="no number"),)),
    ),
    warnings=("one label only",),
)
POINT = Progress(epoch=1, epochs=2, step=3, steps=4, loss=0.5, metrics={"mse": 0.25})
ORDERS: list[AnyOrder] = [
    Fit(
        model="m",
        config={"epochs": 3, "betas": [0.9, 0.99]},
        data=HERE,
        store=StoreLocation(HERE),
        job="j",
        attempt=2,
        device="cpu",
        tensorboard=True,
        history=(POINT, POINT),
        dataset=FIELD,
    ),
    Evaluate(model="m", config={}, data=HERE, path=HERE, record=RECORD),
    Evaluate(model="m", config={}, data=HERE, path=HERE, record=RECORD, dataset=FIELD),
    Ingest(
        model="m",
        store=StoreLocation(HERE),
        job="j",
        attempt=1,
        source=HERE,
        data=HERE,
        format="csv",
        options=DatasetOptions(label_column="answer"),
        parent=HERE,
        kin=(HERE, HERE),
        allow_rejected=0.01,
        config={"epochs": 3},
    ),
    Adopt(model="m", path=HERE, arguments={"size": None}, store=StoreLocation(HERE)),
    Adopt(model="m", path=HERE, arguments={}, store=StoreLocation(HERE), bundle=True),
    Export(model="m", path=HERE, record=RECORD, store=StoreLocation(HERE)),
]
MESSAGES: list[Message] = [
    Progressed(point=POINT),
    Fitted(record=RECORD, metric="mse", higher_is_better=False),
    Evaluated(metrics={"mse": 0.5}, dataset="d"),
    Adopted(record=RECORD),
    ExportDone(),
    Ingested(sha256="0", folder="datasets/m/0", summary=SUMMARY),
    Failed(kind=FailureKind.DATASET, title="t", detail="d", summary=SUMMARY),
    *(Failed(kind=kind, title="t", detail="two\nlines") for kind in FailureKind),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.type)
def test_an_order_is_the_same_after_the_codec(order: AnyOrder) -> None:
    line = encode_order(order)
    assert b"\n" not in line
    assert decode_order(line) == order


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)
def test_a_message_is_the_same_after_the_codec(message: Message) -> None:
    line = encode_message(message)
    assert b"\n" not in line
    assert decode_message(line) == message


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_arrays_keep_shape_dtype_and_values_that_are_not_finite(dtype: type[np.generic]) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    order = decode_order(encode_order(Explain(model="m", path=HERE, record=RECORD, samples=array, method="gradient")))
    assert isinstance(order, Explain)
    outputs = np.array([[math.nan, math.inf]], np.float32)
    answer = decode_message(encode_message(Explained(outputs=outputs, attributions=array)))
    assert isinstance(answer, Explained)
    np.testing.assert_array_equal(answer.outputs, outputs)
    for found in (order.samples, answer.attributions):
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == dtype


def test_named_arrays_of_equal_and_of_different_lengths_pass_the_codec() -> None:
    columns = Columns({"age": np.array([1, 2], np.float32), "words": [np.array([1]), np.array([2, 3])]})
    order = Explain(
        model="m", path=HERE, record=RECORD, samples=columns, method="gradient", inputs=("age",), output="o"
    )
    found = decode_order(encode_order(order))
    assert isinstance(found, Explain)
    assert isinstance(found.samples, Columns)
    assert (found.inputs, found.output, list(found.samples)) == (("age",), "o", ["age", "words"])
    for row in range(2):
        for one, other in zip(found.samples.sample(row).values(), columns.sample(row).values(), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_message(Evaluated(metrics={"mse": math.nan}, dataset="d"))


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'{"type": "fit"}', b'{"type": "nope"}'])
def test_a_line_that_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        decode_order(line)
    with pytest.raises(ValueError, match="validation error"):
        decode_message(line)


def test_an_array_that_needs_pickle_is_refused() -> None:
    line = json.loads(encode_message(Explained(outputs=np.ones(1), attributions=np.ones(1))))
    line["outputs"] = "AAAA"
    with pytest.raises(ValueError, match="validation error"):
        decode_message(json.dumps(line).encode())


def test_an_order_is_answered_by_its_own_result_or_a_failure() -> None:
    order = ORDERS[-1]
    failed = Failed(kind=FailureKind.STORE, title="t", detail="d")
    assert order.answered_by(ExportDone()) == ExportDone()
    assert order.answered_by(failed) is failed
    assert order.answered_by(Progressed(point=POINT)) is None
    assert order.answered_by(Adopted(record=RECORD)) is None
