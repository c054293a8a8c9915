"""Whether two versions answer alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from typing_extensions import TypedDict

from models.outputs import Classification, describe_classes, describe_outputs, describe_values
from models.samples import Batch, Columns
from models.spec import Array, ModelSpec
from service.delivery.agreement import Answers, Describe, alike, example
from tests.fakes import LINE

CLASSES = replace(LINE, describe=describe_classes, prediction=Classification)


class Named(TypedDict):
    """A prediction with a text as label."""

    label: str


def numbers(*rows: float) -> Array:
    return np.array(rows, np.float32).reshape(-1, 1)


def compared(spec: ModelSpec, live: Batch, candidate: Batch, describe: Describe, tolerance: float = 1e-6) -> list[bool]:
    return alike(spec, Answers(live, describe), Answers(candidate, describe), tolerance)


def test_values_agree_within_the_tolerance() -> None:
    live, candidate = numbers(1.0, 1.0, 1.0), numbers(1.0, 1.05, 1.2)
    assert compared(LINE, live, candidate, describe_values, 0.1) == [True, True, False]
    assert compared(LINE, live, candidate, describe_values) == [True, False, False]


def test_the_last_digits_of_a_large_value_may_differ() -> None:
    assert compared(LINE, numbers(1e6), numbers(1e6 + 0.25), describe_values) == [True]


def test_what_is_not_finite_agrees_with_itself_only() -> None:
    live, candidate = numbers(np.nan, np.nan, np.inf), numbers(np.nan, 1.0, np.inf)
    assert compared(LINE, live, candidate, describe_values) == [True, False, True]


def test_classes_agree_by_their_label_whatever_the_probabilities() -> None:
    live, candidate = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.6, 0.4], [0.4, 0.6]])
    assert compared(CLASSES, live, candidate, describe_classes) == [True, False]


def test_labels_are_those_that_each_version_describes() -> None:
    spec = replace(LINE, prediction=Named)
    live = Answers(numbers(0, 1), lambda values: [{"label": "ab"[int(row)]} for row in values[:, 0]])
    candidate = Answers(numbers(1, 1), lambda values: [{"label": "ba"[int(row)]} for row in values[:, 0]])
    assert alike(spec, live, candidate, 0) == [True, False]


@pytest.mark.parametrize(
    ("live", "candidate", "expected"),
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros(2, int)}, {"a": np.zeros((2, 3)), "b": np.array([0, 1])}, [True, False]),
        ({"a": [np.zeros(1), np.zeros(2)]}, {"a": [np.zeros(2), np.zeros(2)]}, [False, True]),
        ({"a": np.zeros((2, 3))}, {"a": np.zeros((2, 4))}, [False, False]),
        ({"a": np.zeros(2)}, {"b": np.zeros(2)}, [False, False]),
        ({"a": np.array([250, 5], np.uint8)}, {"a": np.array([251, 5], np.uint8)}, [False, True]),
        ({"a": np.array([True, False])}, {"a": np.array([True, True])}, [True, False]),
    ],
)
def test_named_values_agree_if_all_arrays_do(
    live: dict[str, Any], candidate: dict[str, Any], expected: list[bool]
) -> None:
    assert compared(LINE, Columns(live), Columns(candidate), describe_outputs) == expected


def test_an_example_is_json_and_a_large_one_its_size() -> None:
    assert example({"value": np.float32(0.5), "row": np.zeros(2)}) == {"value": 0.5, "row": [0.0, 0.0]}
    assert example({"value": np.float32("nan")}) == {"value": None}
    assert example({"picture": np.zeros((100, 100))})["bytes"] > 16_384
