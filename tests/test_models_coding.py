"""Coding one sample: defaults, names, pictures in any form, the model's own encode."""

import base64
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.coding import Coder, example_samples, picture_file
from models.errors import CheckpointError, InvalidInput
from models.samples import Columns
from models.signature import Category, Input, Number, Picture, Tensor
from tests.signatures import SIAMESE, TABLE, TEXT, VOCABULARY, grey_8x8, spot

ROW = {"age": 22, "sex": "male", "fare": 7.25}


def refusal(coder: Coder, sample: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        coder(sample)
    return f"{caught.value.title}: {caught.value.detail}"


def png(level: int) -> bytes:
    file = io.BytesIO()
    spot(level).save(file, "PNG")
    return file.getvalue()


def test_each_input_becomes_one_array() -> None:
    arrays = Coder(TABLE, {})(ROW)
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "age": ("float32", 22.0),
        "sex": ("int64", 1),
        "fare": ("float32", 7.25),
    }


@pytest.mark.parametrize(
    "sample",
    [{"age": 22, "sex": "male"}, {**ROW, "fare": None}, {**ROW, "fare": np.nan}],
    ids=["absent", "null", "nan"],
)
def test_an_optional_input_takes_its_default(sample: Mapping[str, Any]) -> None:
    assert np.isnan(Coder(TABLE, {})(sample)["fare"])


def test_defaults_of_every_kind() -> None:
    inputs: dict[str, Input] = {
        "number": Number(default=3),
        "category": Category(["a", "b"], default="b"),
        "array": Tensor((2,), default=[1.0, 2.0]),
        "picture": Picture(grey_8x8, (8, 8), default=np.zeros((8, 8), np.uint8)),
    }
    arrays = Coder(replace(TABLE, inputs=inputs, example=[{}]), {})({})
    assert (arrays["number"].item(), arrays["category"].item(), arrays["array"].tolist()) == (3, 1, [1, 2])
    assert arrays["picture"].shape == (8, 8)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({**ROW, "sex": "femal"}, "Wrong value: sex: 'femal' is none of 'female', 'male'"),
        ({**ROW, "age": 200}, "Number out of range: age: 200 is not from 0 to 120"),
        ({"sex": "male"}, "Missing value: age is missing and has no default"),
        ({**ROW, "age": None}, "Missing value: age is missing and has no default"),
        ({**ROW, "agee": 1}, "Unknown input: the model has no input 'agee'; did you mean 'age'?"),
        ({**ROW, "zzz": 1}, "Unknown input: the model has no input 'zzz'; it takes age, sex, fare (optional)"),
        ([22, "male"], "Wrong sample: send a sample as an object with age, sex, fare (optional)"),
        ("22", "Wrong sample: send a sample as an object with age, sex, fare (optional)"),
    ],
    ids=["value", "range", "absent", "null", "misspelt", "unknown", "list", "text"],
)
def test_an_error_names_input_value_and_what_is_allowed(sample: object, said: str) -> None:
    assert refusal(Coder(TABLE, {}), sample) == said


def test_a_single_text_may_be_plain() -> None:
    coder = Coder(TEXT, VOCABULARY)
    assert coder("good film")["ids"].tolist() == coder({"review": "good film"})["ids"].tolist() == [1, 3]


def test_encode_gets_the_artifacts_of_its_version() -> None:
    assert Coder(TEXT, {"words": ["<unknown>", "film", "good"]})("good film")["ids"].tolist() == [2, 1]


def test_encode_may_refuse_a_sample() -> None:
    assert refusal(Coder(TEXT, VOCABULARY), "   ") == "No words: review: the text has no words"


def test_an_encode_that_raises_something_else_fails_its_sample_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(sample: Mapping[str, Any]) -> Mapping[str, Any]:
        raise KeyError(sample["review"])

    with caplog.at_level(logging.WARNING):
        said = refusal(Coder(replace(TEXT, encode=broken), {}), "good")
    assert said.startswith("Unreadable sample: the model's encode raised KeyError")
    assert "could not be encoded" in caplog.text


@pytest.mark.parametrize(
    "second",
    [{"other": [1]}, {"ids": [0.5]}, {"ids": ["a"]}],
    ids=["other names", "other dtype", "texts"],
)
def test_arrays_have_the_names_and_dtypes_of_the_first_sample(second: Mapping[str, Any]) -> None:
    found: Iterator[Mapping[str, Any]] = iter([{"ids": [1, 2]}, second])
    coder = Coder(replace(TEXT, encode=lambda _: next(found)), {})
    coder("first")
    assert refusal(coder, "second").startswith("Unreadable sample")


def test_a_sample_of_which_nothing_is_left_is_refused() -> None:
    """An empty series would fail the whole batch in most networks."""
    found: Iterator[Mapping[str, Any]] = iter([{"ids": [1]}, {"ids": []}])
    coder = Coder(replace(TEXT, encode=lambda _: next(found)), {})
    coder("good")
    assert refusal(coder, "!").startswith("Empty sample: nothing is left of ids")


@pytest.mark.parametrize(
    "value",
    [
        spot(40),
        grey_8x8(spot(40)),
        png(40),
        base64.b64encode(png(40)).decode(),
        base64.urlsafe_b64encode(png(40)).decode().rstrip("="),
        f"data:image/png;base64,{base64.encodebytes(png(40)).decode()}",
    ],
    ids=["image", "array", "bytes", "base64", "base64 for URLs", "data URL with line breaks"],
)
def test_a_picture_in_any_form(value: object) -> None:
    arrays = Coder(SIAMESE, {})({"left": value, "right": spot(0)})
    np.testing.assert_array_equal(arrays["left"], grey_8x8(spot(40)))


@pytest.mark.parametrize("value", ["not base64!", "é", "data:image/png;base64,%%"], ids=["text", "letter", "URL"])
def test_a_text_that_is_no_base64_is_refused(value: str) -> None:
    assert refusal(Coder(SIAMESE, {}), {"left": value, "right": spot(0)}).startswith("No base64: left: ")
    with pytest.raises(InvalidInput):
        picture_file(value)


def test_a_damaged_picture_names_its_input() -> None:
    said = refusal(Coder(SIAMESE, {}), {"left": png(0), "right": png(0)[:40]})
    assert ": right: " in said


def test_an_example_that_the_encode_of_a_version_refuses_is_a_fault_of_its_checkpoint() -> None:
    spec = replace(TEXT, example=[{"review": " "}])
    with pytest.raises(CheckpointError, match="the model's example does not fit its inputs: No words: review: the"):
        example_samples(spec, Coder(spec, VOCABULARY))


def test_examples_are_stacked() -> None:
    samples = example_samples(TABLE)
    assert isinstance(samples, Columns)
    assert len(samples) == 2


def test_an_encode_that_returns_the_text_of_a_category_is_told_the_way_out() -> None:
    spec = replace(TABLE, encode=dict)
    with pytest.raises(CheckpointError, match=r"no numbers under sex: .*Return its position, VALUES.index"):
        example_samples(spec)
