"""Variable length: buckets with a bound on the padding, lengths and masks, outputs in the order of the samples."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.padding import WASTE, buckets, computing, stacked
from models.samples import Columns, all_finite, finite_rows, joined, resized, split
from models.signature import Array, Output, Padded
from tests.signatures import SERIES, TAGGER, UNPADDED

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=70)


def series(lengths: list[int], width: int = 1) -> Columns:
    """Samples of these lengths; the numbers of each are its position."""
    rows = [{"steps": np.full((length, width), place, np.float32)} for place, length in enumerate(lengths)]
    return Columns.of(rows)


@given(LENGTHS)
def test_padded_arrays_have_at_most_twice_the_elements_of_the_samples(lengths: list[int]) -> None:
    samples = series(lengths)
    padding = {"steps": Padded()}
    rows = buckets(samples, padding)
    assert sorted(place for bucket in rows for place in bucket) == list(range(len(lengths)))
    for bucket in rows:
        padded = stacked(samples.take(bucket), padding)["steps"]
        assert padded.size <= WASTE * sum(lengths[place] for place in bucket)


@given(LENGTHS)
def test_outputs_are_in_the_order_of_the_samples(lengths: list[int]) -> None:
    def forward(arrays: Mapping[str, Array]) -> list[Array]:
        first = arrays["series"][:, 0, 0]  # (N,)
        return [np.stack([first, arrays["lengths"].astype(np.float32)], axis=1)]

    rows = [{"series": np.full((length, 2), place, np.float32)} for place, length in enumerate(lengths)]
    values = computing(forward, SERIES)(Columns.of(rows))
    assert not isinstance(values, Columns)
    assert values.tolist() == [[place, length] for place, length in enumerate(lengths)]


@given(LENGTHS)
def test_an_output_with_a_variable_axis_is_cut_to_the_length_of_its_sample(lengths: list[int]) -> None:
    rows = [{"steps": np.full(length, place, np.float32)} for place, length in enumerate(lengths)]
    for spec in (TAGGER, UNPADDED):
        values = computing(lambda arrays: [arrays["steps"] + 1], spec)(Columns.of(rows))
        assert isinstance(values, Columns)
        found = [values.sample(place)["tags"].tolist() for place in range(len(lengths))]
        assert found == [[place + 1] * length for place, length in enumerate(lengths)]


def test_samples_without_padding_share_a_bucket_only_if_their_shapes_are_equal() -> None:
    assert sorted(map(sorted, buckets(series([3, 5, 3, 5, 4]), {}))) == [[0, 2], [1, 3], [4]]
    assert buckets(series([3, 3]), {}) == [[0, 1]]


def test_lengths_and_masks_follow_the_real_elements() -> None:
    padding = {"steps": Padded(value=-1, lengths="lengths", mask="mask")}
    arrays = stacked(series([1, 3]), padding)
    assert arrays["steps"][:, :, 0].tolist() == [[0, -1, -1], [1, 1, 1]]
    assert arrays["lengths"].tolist() == [1, 3]
    assert arrays["lengths"].dtype == np.int64
    assert arrays["mask"].tolist() == [[True, False, False], [True, True, True]]


def test_equal_lengths_have_lengths_and_masks_too() -> None:
    arrays = stacked(series([2, 2]), {"steps": Padded(lengths="lengths", mask="mask")})
    assert arrays["lengths"].tolist() == [2, 2]
    assert arrays["mask"].all()


def test_two_variable_axes_have_two_lengths_and_a_mask_of_two_axes() -> None:
    samples = Columns.of([{"field": np.ones((1, 3), np.float32)}, {"field": np.ones((2, 1), np.float32)}])
    padding = {"field": Padded(lengths="lengths", mask="mask", axes=(0, 1))}
    arrays = stacked(samples, padding)
    assert arrays["field"].shape == (2, 2, 3)
    assert arrays["lengths"].tolist() == [[1, 3], [2, 1]]
    assert arrays["mask"].tolist() == [[[True] * 3, [False] * 3], [[True, False, False]] * 2]
    assert (arrays["field"] == arrays["mask"]).all()


def test_an_axis_that_is_not_padded_separates_the_samples() -> None:
    samples = Columns.of([{"field": np.ones(shape, np.float32)} for shape in [(1, 3), (2, 3), (2, 4)]])
    assert sorted(map(sorted, buckets(samples, {"field": Padded()}))) == [[0, 1], [2]]


def test_columns_are_cut_and_joined_like_arrays() -> None:
    samples = joined([series([2, 2]), series([2]), series([1, 3])])
    assert isinstance(samples, Columns)
    assert [len(samples.sample(row)["steps"]) for row in range(5)] == [2, 2, 2, 1, 3]
    assert [len(part) for part in split(samples, 2)] == [2, 3]
    assert [len(part) for part in split(np.zeros((5, 1)), 2)] == [3, 2]
    assert len(resized(samples, 12)) == 12
    assert samples.nbytes == 10 * 4
    assert isinstance(joined([series([2, 2]), series([2])]), Columns)


def test_float64_becomes_float32() -> None:
    column = Columns.of([{"x": np.asarray(1.0)}]).arrays["x"]
    assert isinstance(column, np.ndarray)
    assert column.dtype == np.float32


def test_finite_rows_are_found_in_every_array() -> None:
    values = Columns({"a": np.array([1, np.nan, 1]), "b": [np.zeros(1), np.zeros(2), np.array([np.inf])]})
    assert finite_rows(values).tolist() == [True, False, False]
    assert not all_finite(values)
    assert all_finite(values[:1])
    assert finite_rows(np.array([[1.0, 2.0], [np.nan, 0.0]])).tolist() == [True, False]


def test_several_outputs_keep_their_dtypes_through_buckets() -> None:
    outputs = {"place": Output((), np.int64), "steps": Output((None, 1), like="steps")}
    spec = replace(TAGGER, outputs=outputs)

    def forward(arrays: Mapping[str, Array]) -> list[Array]:
        return [arrays["steps"][:, 0, 0].astype(np.int64), arrays["steps"]]

    values = computing(forward, spec)(series([1, 200, 3]))
    assert isinstance(values, Columns)
    places = values.arrays["place"]
    assert isinstance(places, np.ndarray)
    assert (places.tolist(), places.dtype.name) == ([0, 1, 2], "int64")


@pytest.mark.parametrize("count", [1, 3], ids=["one sample", "three samples"])
def test_one_array_without_names_is_returned_as_it_is(count: int) -> None:
    values = computing(lambda arrays: [arrays["series"][:, 0]], SERIES)(
        Columns.of([{"series": np.ones((4, 2), np.float32)}] * count)
    )
    assert isinstance(values, np.ndarray)
    assert values.shape == (count, 2)
