"""The example of a model as infer requests: each kind of input, values that are absent, and what /v2 makes of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from models.contract import fault_of
from models.signature import Category, Number, Padded, Picture, Text
from models.signature import Tensor as TensorInput
from models.spec import ModelSpec
from service import check
from service.api.openinference.example import requests
from service.api.openinference.signature import accepted
from tests.fakes import LINE
from tests.signatures import SERIES, SIAMESE, SIGNATURES, TABLE, TEXT, grey_8x8, spot

(CARRIED,) = [one for one in check.CHECKS if one.promise.startswith("the open inference protocol")]

EVERYTHING = replace(
    TABLE,
    inputs={
        "age": Number(0, 120, default=float("nan")),
        "code": Category([3, 5, 8], default=5),
        "sex": Category(["female", "male"]),
        "words": Text(default=""),
        "picture": Picture(grey_8x8, (8, 8), default=np.zeros((8, 8), np.uint8)),
        "grid": TensorInput((None, None), low=-9, high=9),
        "flags": TensorInput((2,), bool, default=[True, False]),
        "half": TensorInput((), np.float16, default=1.0),
    },
    encode=lambda sample: (
        {name: value for name, value in sample.items() if name not in {"words", "sex"}}
        | {"letters": len(sample["words"]), "male": sample["sex"] == "male"}
    ),
    padding={"grid": Padded(axes=(0, 1))},
    example=[
        {
            "age": 22,
            "code": 8,
            "sex": "male",
            "words": "a é",
            "picture": spot(9),
            "grid": [[1, 2]],
            "flags": [False] * 2,
        },
        {"sex": "female", "grid": [[0.5], [0.25]]},
        {"age": None, "code": None, "sex": "male", "words": "", "picture": None, "grid": [[0.1]], "half": 0.5},
        {"sex": "female", "grid": [[3], [4]]},
    ],
)


def sent(spec: ModelSpec) -> list[tuple[list[int], list[dict[str, Any]], bool]]:
    """Positions, tensors and whether they are binary, of each request."""
    return [
        (rows, orjson.loads(body[: int(size)] if size else body)["inputs"], size is not None)
        for rows, body, size in requests(spec)
    ]


@pytest.mark.parametrize("name", [*SIGNATURES, "line", "everything"])
def test_v2_carries_the_example_of_each_signature(name: str) -> None:
    spec = {**SIGNATURES, "line": LINE, "everything": EVERYTHING}[name]
    found = sent(spec)
    for binary in (True, False):
        carried = sorted(row for rows, _, is_binary in found for row in rows if is_binary == binary)
        assert carried == list(range(len(spec.example))) or (name == "everything" and not binary)
    for _, tensors, _ in found:
        assert all(tensor["datatype"] == accepted(spec)[tensor["name"]][0].datatype for tensor in tensors)
    assert fault_of(CARRIED, name, spec) == ""


def test_samples_of_different_shapes_have_requests_of_their_own() -> None:
    assert [rows for rows, _, binary in sent(EVERYTHING) if binary] == [[0], [1, 3], [2]]
    assert [rows for rows, _, binary in sent(SERIES) if binary] == [[0], [1]]
    assert [rows for rows, _, binary in sent(TEXT) if binary] == [[0, 1]]
    assert [rows for rows, _, binary in sent(EVERYTHING) if not binary] == [[0], [1, 3]]  # no FP16 in JSON


def test_texts_are_bytes_absent_values_empty_or_null_and_pictures_base64() -> None:
    (_, tensors, _) = next(one for one in sent(EVERYTHING) if not one[2] and one[0] == [1, 3])
    by_name = {tensor["name"]: tensor for tensor in tensors}
    assert by_name.keys() == {"age", "code", "sex", "words", "picture", "grid"}
    assert (by_name["age"]["datatype"], by_name["age"]["data"]) == ("FP32", [None, None])
    assert (by_name["sex"]["datatype"], by_name["sex"]["data"]) == ("BYTES", ["female", "female"])
    assert by_name["words"]["data"] == by_name["picture"]["data"] == by_name["code"]["data"] == ["", ""]
    assert (by_name["grid"]["shape"], by_name["grid"]["data"]) == ([2, 2, 1], [0.5, 0.25, 3, 4])
    (_, tensors, _) = next(one for one in sent(SIAMESE) if not one[2])
    assert tensors[0]["data"][0].startswith("iVBORw0KGgo")


def test_a_sample_of_defaults_alone_cannot_be_sent_and_is_left_out() -> None:
    spec = replace(EVERYTHING, inputs={"flags": EVERYTHING.inputs["flags"]}, encode=None, padding={}, example=[{}])
    assert sent(spec) == []
    assert fault_of(CARRIED, "flags", spec) == ""


def test_an_example_that_v2_would_change_is_named() -> None:
    """An empty element of BYTES stands for the default."""
    spec = replace(
        TEXT,
        inputs={"review": Text(default="good")},
        encode=lambda sample: {"ids": [len(sample["review"]) + 1]},
        example=[{"review": "bad"}, {"review": ""}],
    )
    assert fault_of(CARRIED, "text", spec) == "the example changes when it is sent to /v2 in binary"


def test_pictures_are_sent_as_they_are() -> None:
    colours = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    spec = replace(SIAMESE, example=[{"left": colours, "right": spot(3)}])
    assert fault_of(CARRIED, "siamese", spec) == ""
