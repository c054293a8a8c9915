"""Artifacts: what travels in a record, and what is refused."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from models.artifacts import ArtifactError, bound, pack, takes_artifacts, unpack
from models.checkpoints.record import Record
from models.messages import Adopted, decode_message, encode_message


def test_artifacts_come_back_from_json_as_they_were() -> None:
    artifacts = {
        "words": ["a", "é"],
        "size": 3,
        "share": 0.5,
        "lower": True,
        "none": None,
        "scaler": {"mean": np.array([1.0, np.nan], np.float32), "names": ("x", "y"), "level": np.float64(2)},
    }
    found = unpack(json.loads(json.dumps(pack(artifacts), allow_nan=False)))
    mean = found["scaler"].pop("mean")
    np.testing.assert_array_equal(mean, np.array([1.0, np.nan], np.float32))
    assert mean.dtype == np.float32
    assert found == {
        **{name: artifacts[name] for name in ("words", "size", "share", "lower", "none")},
        "scaler": {"names": ["x", "y"], "level": 2.0},
    }


def test_the_record_carries_artifacts_in_messages() -> None:
    record = Record(model="text", sha256="0", artifacts=pack({"words": ["a"], "weights": np.arange(3)}))
    message = decode_message(encode_message(Adopted(record=record)))
    assert isinstance(message, Adopted)
    assert message.record == record
    np.testing.assert_array_equal(unpack(message.record.artifacts)["weights"], np.arange(3))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param({"labels": {0: "cat"}}, r"labels has the key 0: keys are texts", id="number as key"),
        pytest.param({"words": {"a"}}, "words is of type set", id="set"),
        pytest.param({"scaler": [1, object()]}, r"scaler\[1\] is of type object", id="object"),
        pytest.param({"table": {"x": lambda: 1}}, r"table\['x'\] is of type function", id="function"),
        pytest.param({"mean": float("nan")}, "mean is nan: store it in a NumPy array", id="NaN"),
        pytest.param({"mean": np.float32("inf")}, "mean is inf", id="infinity of NumPy"),
        pytest.param({"words": np.array(["a", None])}, "array of Python objects", id="array of objects"),
    ],
)
def test_values_that_json_and_npy_cannot_carry_are_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        pack(value)


def test_a_function_gets_artifacts_if_it_has_a_parameter_of_that_name() -> None:
    def with_them(value: int, artifacts: Any) -> Any:
        return value, artifacts

    assert takes_artifacts(with_them)
    assert not takes_artifacts(abs)
    assert not takes_artifacts(max)
    assert bound(with_them, {"a": 1})(2) == (2, {"a": 1})
    assert bound(abs, {"a": 1})(-2) == 2
    assert not takes_artifacts(partial(with_them, 1)) or bound(partial(with_them, 1), {})() == (1, {})
