"""Answers and truths in comparable form."""

from typing import Any

import numpy as np
import pytest
from typing_extensions import TypedDict

from models import catalog
from models.errors import InvalidInput
from models.outputs import Classification, describe_classes, probabilities
from models.signature import Number, Output
from models.spec import Entry, ModelSpec, Prediction
from service.data.said import Part, checked, compared, form_of, label_text, probability_of, said_of
from tests.fakes import LINE, Line

DIGITS = catalog.specs()["mnist"]
LABELLED = ModelSpec(
    summary="names of labels",
    network=Line,
    inputs={"x": Number()},
    outputs={
        "species": Output(shape=(3,), labels=("cat", "dog", "owl")),
        "weight": Output(),
        "box": Output(shape=(4,)),
    },
    example=[{"x": 1.0}],
)


class Named(TypedDict):
    label: str
    probability: float


def named(rows: Any) -> list[Prediction]:
    return [{"label": ("low", "high")[int(row.argmax())], "probability": float(row.max())} for row in rows]


TWO = ModelSpec(
    summary="labels that describe alone knows",
    network=Line,
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)),
    postprocess=probabilities,
    describe=named,
    prediction=Named,
    example=np.zeros((1, 1), np.float32),
)


def answered(k: int = 10) -> tuple[Prediction, Any]:
    values = np.full((1, k), 0.01, np.float32)
    values[0, 7] = 0.91
    return describe_classes(values)[0], describe_classes


def test_the_labels_of_a_classifier_are_those_of_its_answers() -> None:
    prediction, describe = answered()
    form = form_of(DIGITS, prediction, describe, 10)
    assert form == {"": Part("label", list(range(10)))}
    assert [checked(truth, form) for truth in (3, "3", 3.0)] == [3, 3, 3]
    with pytest.raises(InvalidInput, match="'10' is none of the model's labels: 0, 1"):
        checked(10, form)


def test_names_of_labels_are_found_by_asking_describe() -> None:
    values = np.array([[0.2, 0.8]], np.float32)
    form = form_of(TWO, named(values)[0], named, 2)
    assert checked("low", form) == "low"
    with pytest.raises(InvalidInput, match="none of the model's labels: low, high"):
        checked("middle", form)


def test_a_describe_that_fails_for_such_values_leaves_the_labels_unknown() -> None:
    def picky(_: Any) -> list[Prediction]:
        raise ValueError("only pictures")

    assert checked("any text", form_of(TWO, {"label": "low"}, picky, 2)) == "any text"


@pytest.mark.parametrize("truth", [None, [], {"a": 1}, 1.5, "", "x" * 1001, "a\0b", "\ud800"])
def test_what_is_no_label_is_refused(truth: Any) -> None:
    with pytest.raises(InvalidInput):
        checked(truth, {"": Part("label")})


@pytest.mark.parametrize("truth", [None, "1", True, float("nan"), 1e39, [1.0]])
def test_what_is_no_number_is_refused_as_a_value(truth: Any) -> None:
    with pytest.raises(InvalidInput, match="must be a finite number"):
        checked(truth, form_of(LINE))


def test_truths_of_named_outputs_are_an_object_of_some_of_them() -> None:
    form = form_of(LABELLED)
    assert checked({"species": "dog", "weight": 3, "box": [1, 2, 3, 4]}, form)["weight"] == 3.0
    wrong: list[tuple[Any, str]] = [
        ("dog", "must be an object with some of species, weight, box"),
        ({}, "must be an object"),
        ({"colour": "red"}, "'colour' is no output"),
        ({"species": "cow"}, "species: 'cow' is none"),
        ({"box": [1, 2]}, r"box: the truth has shape \[2\]; it must be \[4\]"),
        ({"box": ["a"]}, "box: the truth must be finite numbers"),
    ]
    for truth, words in wrong:
        with pytest.raises(InvalidInput, match=words):
            checked(truth, form)


def test_the_truth_of_a_single_output_is_bare_however_it_was_told() -> None:
    form = {"species": Part("label", ("cat", "dog"))}
    assert checked("cat", form) == checked({"species": "cat"}, form) == "cat"


def test_a_model_of_arrays_alone_takes_their_truths_and_compares_nothing() -> None:
    form = {"box": Part("array", shape=(None, 2))}
    assert checked([[1, 2], [3, 4]], form) == [[1, 2], [3, 4]]
    assert compared({}, [[1, 2]]) == (None, None)
    with pytest.raises(InvalidInput, match="neither labels nor values"):
        checked(1, {})


def test_what_a_classification_says_is_its_label_and_probability() -> None:
    prediction, _ = answered()
    said = said_of(DIGITS, prediction)
    assert said[""]["label"] == 7
    assert probability_of(said) == pytest.approx(0.91)
    assert compared(said, 7) == (True, None)
    assert compared(said, 1) == (False, None)


def test_what_named_outputs_say_are_their_labels_and_values() -> None:
    values = {"species": [0.1, 0.7, 0.2], "weight": np.float32(3.5), "box": [0, 0, 1, 1]}
    said = said_of(LABELLED, values)
    assert said == {"species": {"label": "dog", "probability": 0.7}, "weight": {"value": 3.5}}
    assert compared(said, {"species": "dog", "weight": 3.0, "box": [0, 0, 1, 1]}) == (True, 0.5)
    assert compared(said, {"species": "cat"}) == (False, None)


def test_logits_are_no_probabilities() -> None:
    assert said_of(LABELLED, {"species": [-1.0, 4.0, 0.0], "weight": 0.0, "box": []})["species"] == {"label": "dog"}


def test_what_a_regressor_says_is_its_value() -> None:
    said = said_of(LINE, {"value": np.float32(2.5)})
    assert said == {"": {"value": 2.5}}
    assert compared(said, 2.0) == (None, 0.5)
    assert probability_of(said) is None


def test_fields_of_any_other_prediction_are_labels_and_values() -> None:
    class Mood(TypedDict):
        mood: str
        force: float

    spec = ModelSpec(**{**vars(LINE), "prediction": Mood})
    prediction = {"mood": "calm", "force": 0.5}
    assert said_of(spec, prediction) == {"mood": {"label": "calm"}, "force": {"value": 0.5}}
    assert form_of(spec, prediction) == {"mood": Part("label"), "force": Part("value")}
    assert set(form_of(spec)) == {"mood", "force"}


def test_labels_are_compared_as_texts() -> None:
    assert [label_text(label) for label in (3, 3.0, np.int64(3), " 3 ")] == ["3"] * 4
    assert label_text(np.bool_(True)) == "true"
    assert label_text(2.5) is None
    assert Classification.__annotations__["label"] is int
