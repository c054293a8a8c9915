"""Postprocessing and description of named outputs: the model's functions get arrays (N, ...), whatever the shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from models.outputs import description, postprocessing
from models.samples import Columns
from models.signature import Output
from tests.signatures import TAGGER

SIZES = (2, 3, 2, 1, 3)


class Sum(TypedDict):
    """The prediction of these tests."""

    total: float


def columns() -> Columns:
    """Outputs of five samples of three lengths; each holds its number."""
    return Columns({"tags": [np.full(size, row, np.float32) for row, size in enumerate(SIZES)]})


def test_postprocess_gets_samples_of_equal_shapes_as_arrays_and_their_order_is_kept() -> None:
    seen: list[tuple[int, ...]] = []

    def doubled(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        seen.append(outputs["tags"].shape)
        return {"tags": 2 * outputs["tags"]}

    found = postprocessing(replace(TAGGER, postprocess=doubled), {})(columns())
    assert [row.tolist() for row in found.arrays["tags"]] == [[2.0 * row] * size for row, size in enumerate(SIZES)]
    assert seen == [(2, 2), (2, 3), (1, 1)]


def test_describe_gets_samples_of_equal_shapes_as_arrays_and_their_order_is_kept() -> None:
    def summed(values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [{"total": float(total)} for total in values["tags"].sum(axis=1)]

    spec = replace(TAGGER, describe=summed, prediction=Sum, outputs={"tags": Output((None,))})
    found = description(spec, {})(columns())
    assert found == [{"total": float(row * size)} for row, size in enumerate(SIZES)]
    alone = description(spec, {})(columns()[1:2])
    assert alone == [{"total": 3.0}]
