"""Typed inputs: what each takes, refuses and says."""

import math
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from models.errors import InvalidInput
from models.random_samples import random_value
from models.signature import (
    Category,
    Input,
    Number,
    Output,
    Picture,
    Tensor,
    Text,
    is_missing,
)
from models.spec import Entry, ModelSpec
from service.api.signatures import value_schema
from tests.fakes import LINE
from tests.signatures import SERIES, TABLE, TAGGER, TEXT, grey_8x8

INTS = Tensor((2,), np.int64, 0, 9)
WAVE = Tensor((None, 2), low=-1, high=1, shortest=2, longest=3)
FLAGS = Tensor((2,), np.bool_)
SEX = Category(["female", "male"])
CLASS = Category([1, 2, 3])
PICTURE = Picture(grey_8x8, (8, 8))


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        pytest.param(Number(0, 120), 22, 22.0, id="whole number"),
        pytest.param(Number(0, 120), np.float32(0.5), 0.5, id="number of NumPy"),
        pytest.param(Number(0, 120), 120, 120.0, id="bound"),
        pytest.param(SEX, "male", "male", id="category"),
        pytest.param(CLASS, 3.0, 3, id="whole category written as a float"),
        pytest.param(CLASS, np.int64(2), 2, id="category of NumPy"),
        pytest.param(Text(3), "äöü", "äöü", id="text"),
        pytest.param(Text(3), "", "", id="empty text"),
    ],
)
def test_a_valid_value_is_taken(kind: Any, value: object, wanted: object) -> None:
    assert kind.code(value) == wanted
    assert type(kind.code(value)) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        pytest.param(Number(0, 120), "22", "'22' is not a number from 0 to 120", id="number as text"),
        pytest.param(Number(0, 120), True, "True is not a number from 0 to 120", id="boolean for a number"),
        pytest.param(Number(0, 120), [1], "a value of type list is not a number", id="list for a number"),
        pytest.param(Number(0, 120), 121, "121 is not from 0 to 120", id="number above"),
        pytest.param(Number(0, 120), -0.5, "-0.5 is not from 0 to 120", id="number below"),
        pytest.param(Number(), math.inf, "inf is not from", id="infinity"),
        pytest.param(SEX, "femal", "'femal' is none of 'female', 'male'", id="unknown category"),
        pytest.param(SEX, 1, "1 is none of 'female', 'male'", id="number for a category of texts"),
        pytest.param(CLASS, True, "True is none of 1, 2, 3", id="boolean for a category of numbers"),
        pytest.param(CLASS, "1", "'1' is none of 1, 2, 3", id="text for a category of numbers"),
        pytest.param(CLASS, 1.5, "1.5 is none of 1, 2, 3", id="fraction for a category of numbers"),
        pytest.param(CLASS, math.inf, "inf is none of 1, 2, 3", id="infinity for a category of numbers"),
        pytest.param(Category(range(20)), 20, "and 8 more", id="long list of categories"),
        pytest.param(Text(3), "four", "the text has 4 characters, at most 3 are allowed", id="long text"),
        pytest.param(Text(3), 4, "4 is not a text", id="number for a text"),
        pytest.param(Text(3), {"a": 1}, "a value of type object is not a text", id="object for a text"),
        pytest.param(INTS, [1, 2, 3], r"it has shape [3]; it must be [2]", id="shape"),
        pytest.param(INTS, [1, 1.7], "every number must be whole", id="fraction for a whole number"),
        pytest.param(INTS, [1, 10], "between 0 and 9", id="array above"),
        pytest.param(INTS, [1, True], "it must be numbers in shape [2]", id="boolean among numbers"),
        pytest.param(INTS, ["1", "2"], "it must be numbers in shape [2]", id="texts for numbers"),
        pytest.param(INTS, [[1], [1, 2]], "it must be numbers in shape [2]", id="ragged list"),
        pytest.param(INTS, 5, "it has shape []; it must be [2]", id="number for an array"),
        pytest.param(FLAGS, [0, 1], "it must be booleans in shape [2]", id="numbers for booleans"),
        pytest.param(WAVE, [[0, 0]], "it has 1 elements; send 2 to 3", id="too short"),
        pytest.param(WAVE, [[0, 0]] * 4, "it has 4 elements; send 2 to 3", id="too long"),
        pytest.param(WAVE, [[0, 0], [0, math.nan]], "every number must be finite", id="NaN in an array"),
        pytest.param(PICTURE, 7, "send the bytes of a picture", id="number for a picture"),
        pytest.param(PICTURE, np.zeros((8, 9), np.uint8), "the model takes uint8 [8, 8]", id="picture of another size"),
        pytest.param(PICTURE, np.zeros((8, 8)), "array float64 [8, 8]", id="picture of another dtype"),
        pytest.param(PICTURE, Image.new("L", (4, 4)), "4x4 pixels; send 8x8", id="picture that its reader refuses"),
    ],
)
def test_an_invalid_value_is_named_with_what_is_allowed(kind: Any, value: object, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        kind.code(value)
    assert said in caught.value.detail


def test_a_reader_that_fails_makes_the_picture_unreadable() -> None:
    def broken(_: Image.Image) -> Any:
        raise OSError("broken stream")

    with pytest.raises(InvalidInput, match="Unreadable picture"):
        Picture(broken, (8, 8)).code(Image.new("L", (9, 9)))


@pytest.mark.parametrize("value", [None, math.nan, np.float32("nan")], ids=["null", "nan", "nan of NumPy"])
def test_null_and_nan_stand_for_the_default(value: object) -> None:
    assert is_missing(value)
    assert not is_missing(0)
    assert not is_missing("")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Number(), id="number"),
        pytest.param(Number(100, 200), id="number with bounds"),
        pytest.param(Number(0), id="number with one bound"),
        pytest.param(Number(0, 5, default=1), id="optional number"),
        pytest.param(SEX, id="category"),
        pytest.param(CLASS, id="category of numbers"),
        pytest.param(Text(5), id="text"),
        pytest.param(INTS, id="whole numbers"),
        pytest.param(FLAGS, id="booleans"),
        pytest.param(WAVE, id="variable axis"),
        pytest.param(Tensor((3,), np.int64), id="whole numbers without bounds"),
        pytest.param(PICTURE, id="picture"),
    ],
)
def test_random_values_are_valid(kind: Input) -> None:
    rng = np.random.default_rng(0)
    schema = value_schema(kind)
    for _ in range(50):
        value = random_value(kind, rng)
        if value is None:
            assert kind.default == 1
            continue
        kind.code(value)
        if not isinstance(kind, Picture):
            jsonschema.validate(value.tolist() if isinstance(value, np.ndarray) else value, schema)


def test_random_values_have_bounds_defaults_and_several_lengths() -> None:
    rng = np.random.default_rng(0)
    numbers = [random_value(Number(0, 5, default=1), rng) for _ in range(200)]
    assert {None, 0.0, 5.0} <= set(numbers)
    assert {len(random_value(WAVE, rng)) for _ in range(50)} == {2, 3}


def test_the_schema_of_an_optional_input_takes_null_and_names_the_default() -> None:
    schema = value_schema(Category(["a", "b"], default="b"))
    assert schema == {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}], "default": "b"}
    assert "default" not in value_schema(Number(default=math.nan))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: Category([]), "different values", id="no values"),
        pytest.param(lambda: Category("abc"), "different values", id="a text for values"),
        pytest.param(lambda: Category(["a", "a"]), "different values", id="values twice"),
        pytest.param(lambda: Category(["a", 1]), "all texts, all whole", id="mixed values"),
        pytest.param(lambda: Category([True, 0]), "different values|all texts", id="a boolean among numbers"),
        pytest.param(lambda: Tensor((1,), np.str_), "numbers or bool", id="dtype of texts"),
        pytest.param(lambda: Tensor((None,), shortest=3, longest=2), "shortest", id="lengths"),
        pytest.param(lambda: Output((3,), labels=["a"]), "1 labels", id="labels"),
        pytest.param(lambda: Output((8, 8), picture=True), "uint8", id="picture of floats"),
    ],
)
def test_a_faulty_signature_is_refused_when_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"entry": LINE.entry}, "either `entry` or `inputs`", id="both"),
        pytest.param({"inputs": {}}, "either `entry` or `inputs`", id="neither"),
        pytest.param({"postprocess": None}, "without `outputs`", id="no postprocess"),
        pytest.param({"preprocess": np.negative}, "belong to `entry`", id="preprocess"),
        pytest.param({"picture": grey_8x8}, "belong to `entry`", id="picture"),
        pytest.param({"inputs": {"the age": Number()}}, "Python name", id="name"),
        pytest.param({"inputs": {"review": Text()}}, "define `encode`", id="text without encode"),
        pytest.param({"example": [{"age": 200, "sex": "male"}]}, "example: age: 200 is not from", id="value"),
        pytest.param({"example": [{"age": 20}]}, "example: it has no sex, which is required", id="missing value"),
        pytest.param({"example": [{"age": 20, "sex": "male", "x": 1}]}, "example: it has x", id="unknown input"),
        pytest.param({"example": []}, "example: it has no samples", id="empty example"),
    ],
)
def test_a_spec_whose_fields_contradict_each_other_is_refused(changes: Any, said: str) -> None:
    fields = {name: getattr(TABLE, name) for name in TABLE.__dataclass_fields__}
    with pytest.raises(ValueError, match=said):
        ModelSpec(**{**fields, **changes})


def test_padding_and_outputs_name_arrays_that_exist() -> None:
    series = {name: getattr(TAGGER, name) for name in TAGGER.__dataclass_fields__}
    with pytest.raises(ValueError, match="padding of other"):
        ModelSpec(**{**series, "padding": {"other": TAGGER.padding["steps"]}})
    with pytest.raises(ValueError, match="has no padding"):
        ModelSpec(**{**series, "padding": {}})


def test_only_models_of_one_array_without_artifacts_are_plain() -> None:
    assert LINE.is_plain
    assert not any(spec.is_plain for spec in (TABLE, TEXT, SERIES, TAGGER))
    fields = {name: getattr(LINE, name) for name in LINE.__dataclass_fields__}
    assert not ModelSpec(**{**fields, "describe": lambda rows, artifacts: [artifacts] * len(rows)}).is_plain


def test_the_entry_of_a_named_model_is_none() -> None:
    assert TABLE.entry is None
    assert isinstance(LINE.tensor, Entry)
