"""Statistics of the training data become the bounds of a version."""

from math import inf
from pathlib import Path

import numpy as np
import pytest

from models.mnist import SPEC, drawn_seven
from models.reference import Bounds, Features, Reference, feature_ranges, wider_by, within
from models.spec import Array
from training import data

ROWS = np.random.default_rng(0).uniform([0, 100, -5], [1, 200, 5], (10_000, 3)).astype(np.float32)


def mean(name: str = "mean", low: float | None = None, high: float | None = None) -> Bounds:
    return Bounds(
        name=name, statistic=lambda entries: entries.mean(axis=1), low=low, high=high, detail=lambda value: f"{value:g}"
    )


def details(check: Reference, entries: Array) -> dict[int, str]:
    return {position: error.detail for position, error in check(entries).items()}


def test_the_range_is_that_of_all_entries_over_every_chunk() -> None:
    found = within(mean(), Features()).measured(ROWS)
    assert found["mean"] == [ROWS.mean(axis=1).min(), ROWS.mean(axis=1).max()]
    assert found["features"] == [ROWS.min(axis=0).tolist(), ROWS.max(axis=0).tolist()]


def test_a_statistic_that_is_not_finite_is_left_out() -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        assert within(mean(), mean("second")).measured(np.array([[1.0, np.inf], [0.0, 1.0]])) == {}


def test_bounds_follow_from_the_range_and_its_room() -> None:
    check = within(mean(low=0, high=1), mean("other", high=1000))
    assert details(check, np.array([[5.0], [2000.0]])) == {0: "5", 1: "2000"}
    bounded = check.bounded_by({"mean": [4.0, 6.0], "no longer measured": [0, 0]})
    assert details(bounded, np.array([[2.9], [3.1], [6.9], [7.1], [2000.0]])) == {0: "2.9", 3: "7.1", 4: "2000"}
    assert details(check, np.array([[5.0]])) == {0: "5"}  # unchanged


def test_an_infinite_side_of_the_room_is_not_bounded() -> None:
    bounds = Bounds(
        name="mean",
        statistic=lambda entries: entries.mean(axis=1),
        room=lambda low, _: (low / 2, inf),
        detail=lambda value: f"{value:g}",
    )
    bounded = bounds.bounded_by([4, 6])
    assert (bounded.low, bounded.high) == (2, None)
    assert wider_by(0.5)(4, 6) == (3, 7)


def test_the_groups_are_compared_in_order_each_with_its_own_view() -> None:
    check = within(mean(high=10)).then(within(mean("double", high=10), of=lambda entries: entries * 2))
    assert details(check, np.array([[11.0], [6.0], [5.0]])) == {0: "11", 1: "12"}
    assert check.measured(np.array([[1.0], [3.0]])) == {"mean": [1, 3], "double": [2, 6]}


@pytest.mark.many
@pytest.mark.parametrize("factor", [-1000, -10, 4, 1000, 1e30])
def test_a_row_far_out_of_the_ranges_is_refused_and_no_training_row_is(factor: float) -> None:
    check = feature_ranges("length", "width")
    assert not check(ROWS * 1e6)  # a version without a reference
    bounded = check.bounded_by(check.measured(ROWS))
    assert not bounded(ROWS)
    assert not bounded(np.concatenate([ROWS.min(axis=0)[None] * 0.9, ROWS.max(axis=0)[None] * 1.1]))
    for place, name in enumerate(["length", "width", "feature 2"]):
        wrong = ROWS.copy()
        wrong[:, place] = factor * ROWS[:, place].max()
        found = details(bounded, wrong)
        assert sorted(found) == list(range(len(ROWS)))
        low, high = ROWS[:, place].min(), ROWS[:, place].max()
        assert set(found.values()) == {f"{name} is {wrong[0, place]:g}: the training data has {low:g} to {high:g}"}


def test_a_feature_that_is_constant_in_the_training_data_is_not_bounded() -> None:
    rows = np.array([[1.0, 7.0], [2.0, 7.0]])
    check = feature_ranges(room=0.5)
    bounded = check.bounded_by(check.measured(rows))
    assert not bounded(np.array([[1.5, 1e9]]))
    assert list(bounded(np.array([[2.6, 7.0]]))) == [0]


def test_entries_of_more_dimensions_are_rows_of_all_their_numbers() -> None:
    pictures = np.arange(24.0).reshape(2, 3, 4)
    check = feature_ranges()
    assert np.shape(check.measured(pictures)["features"]) == (2, 12)
    bounded = check.bounded_by(check.measured(pictures))
    assert not bounded(pictures)
    assert list(bounded(np.concatenate([pictures, pictures * 100]))) == [2, 3]


def scans(brightness: float, paper: int) -> Array:
    """Digits of another scanner, uint8 (40, 28, 28)."""
    seven = drawn_seven().astype(np.float64)
    moved = [np.roll(seven, (down, right), (0, 1)) for down in range(-2, 3) for right in range(-4, 4)]
    return np.rint(np.stack(moved) * brightness + paper).astype(np.uint8)


@pytest.mark.parametrize(("brightness", "paper"), [(0.15, 0), (0.2, 5), (0.4, 90), (0.1, 30)])
def test_digits_are_compared_with_the_data_that_a_version_was_fitted_to(brightness: float, paper: int) -> None:
    assert isinstance(SPEC.check, Reference)
    own = scans(brightness, paper)
    assert len(SPEC.check(own)) == len(own)  # unlike the shipped version's data
    bounded = SPEC.check.bounded_by(SPEC.check.measured(own))
    assert not bounded(own)
    assert not bounded(scans(1, 0))  # wider, never narrower
    assert len(bounded(np.full((3, 28, 28), 255, np.uint8))) == 3


@pytest.mark.slow
def test_bounds_of_the_training_split_refuse_no_digit_of_the_test_split(mnist_folder: Path) -> None:
    assert isinstance(SPEC.check, Reference)
    dataset = data.mnist(mnist_folder)
    reference = SPEC.check.measured(dataset.train.samples[:, 0].numpy())
    assert reference["brightest"] == [254, 255]
    assert not SPEC.check.bounded_by(reference)(dataset.test.samples[:, 0].numpy())
