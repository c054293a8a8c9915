"""Distributions, features and answers that drift is measured of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import mnist
from models.drift import answers, features
from models.drift.distribution import BINS, MOST_LABELS, Distribution
from models.drift.reference import LEAST, DriftCounts, DriftReference, counted, measured
from models.reference import feature_ranges
from models.samples import Columns
from models.spec import Array
from tests.line import LINE
from tests.signatures import HEADS, TABLE

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=1000)


def of_numbers(numbers: Any) -> Distribution:
    found = Distribution.of_numbers("feature", "x", np.array(numbers))
    assert found is not None
    return found


def test_numbers_have_ten_quantile_bins_and_those_below_above_and_not_finite() -> None:
    found = of_numbers(NORMAL)
    assert len(found.edges) == BINS + 1
    assert found.counts[0] == found.counts[-2] == found.counts[-1] == 0
    assert all(95 <= count <= 105 for count in found.counts[1:-2])
    beyond = [NORMAL.min() - 1, NORMAL.max() + 1, np.nan, np.inf, float(NORMAL.min()), float(NORMAL.max())]
    assert found.place(np.array(beyond)).tolist() == [1, 1, *[0] * 8, 1, 1, 2]
    assert [name for name, _, _ in found.bins()][-1] == "not finite"
    assert len(found.bins()) == found.size


def test_a_frequent_value_is_a_bin_of_its_own() -> None:
    assert of_numbers([7.0] * 100).place(np.array([6.9, 7.0, 7.1])).tolist() == [1, 1, 1, 0]
    counts = of_numbers([*[0.0] * 700, *range(1, 301)]).counts
    assert counts[1] == 700
    assert of_numbers([0, 1, 2] * 50).counts == (0, 50, 50, 50, 0, 0)


def test_other_rounding_moves_no_frequent_value_to_another_bin() -> None:
    noisy = 0.5 + 1e-8 * RNG.integers(0, 5, 500)
    found = of_numbers(np.concatenate([noisy, RNG.uniform(0.6, 1, 500)]))
    assert found.counts[1] == 500
    assert found.place(noisy - 1e-7)[1] == 500


def test_without_a_finite_number_there_is_no_distribution() -> None:
    assert Distribution.of_numbers("feature", "x", np.array([np.nan, np.inf])) is None


def test_codes_of_no_label_are_others() -> None:
    found = Distribution.of_codes("answer", "label", ["no", "yes"], np.array([0, 1, 1]))
    assert found.counts == (1, 2, 0)
    assert found.place(np.array([-1, 0, 2])).tolist() == [1, 0, 2]
    assert [name for name, _, _ in found.bins()] == ["no", "yes", "others"]


@pytest.mark.parametrize("found", [of_numbers(NORMAL), Distribution.of_codes("answer", "y", [3], np.zeros(3))])
def test_a_distribution_is_the_same_after_a_passage_through_json(found: Distribution) -> None:
    assert Distribution.of_json(found.as_json()) == found


GOOD = {"kind": "feature", "name": "x", "edges": [0.0, 1.0], "counts": [0, 5, 0, 0]}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {**GOOD, "edges": [1.0, 0.0]},
        {**GOOD, "edges": [0.0], "counts": [0, 0, 0]},
        {**GOOD, "edges": [], "counts": [0]},
        {**GOOD, "labels": ["a"]},
        {**GOOD, "counts": [0, 5, 0]},
        {**GOOD, "counts": [0, -5, 0, 0]},
        {**GOOD, "edges": [0.0, float("nan")]},
        {**GOOD, "name": ""},
        {**GOOD, "more": 1},
    ],
)
def test_a_distribution_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        Distribution.of_json(wrong)


def test_rows_of_numbers_are_features_with_the_names_of_the_check() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert list(features.features_of(LINE)(rows)) == ["feature 0", "feature 1"]
    named = features.features_of(replace(LINE, check=feature_ranges("length", "width")))(rows)
    assert {name: numbers.tolist() for name, numbers in named.items()} == {"length": [0, 2, 4], "width": [1, 3, 5]}


def test_long_rows_and_series_are_measured_as_a_whole() -> None:
    assert list(features.standard(np.zeros((2, 65)))) == ["mean", "spread", "least", "greatest"]
    found = features.standard(Columns({"series": [np.array([1.0, 3.0]), np.array([2.0]), np.zeros(0)]}))
    assert found["series length"].tolist() == [2, 1, 0]
    assert found["series mean"].tolist()[:2] == [2, 2]
    assert np.isnan(found["series mean"][2])


def test_named_numbers_and_categories_are_features() -> None:
    columns = Columns({"age": np.array([22.0, 38.0]), "sex": np.array([1, 0]), "fare": np.array([np.nan, 71.25])})
    assert list(features.features_of(TABLE)(columns)) == ["age", "sex", "fare"]
    assert features.labels_of(TABLE) == {"sex": ["female", "male"]}
    many = features.standard(Columns({f"x{number}": np.zeros(2) for number in range(80)}))
    assert len(many) == features.MOST


@pytest.mark.parametrize("shape", [(1, 28, 28), (28, 28), (28, 28, 1), (3, 28, 28), (28, 28, 3)])
def test_pictures_have_ink_whatever_the_order_of_their_axes(shape: tuple[int, ...]) -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 10:17] = 200
    axes = [axis for axis, size in enumerate(shape) if size != 28]
    pictures = np.broadcast_to(np.expand_dims(picture, axes), shape)[None]
    found = {name: round(float(numbers[0]), 3) for name, numbers in features.standard(pictures).items()}
    assert found == {
        "ink mean": round(200 * 140 / 784, 3),
        "ink area": round(140 / 784, 3),
        "box height": round(20 / 28, 3),
        "box width": 0.25,
        "maximum": 200,
    }
    assert features.standard(np.zeros((1, 28, 28), np.uint8))["box height"].tolist() == [0]


def test_a_model_has_features_of_its_own() -> None:
    spec = replace(LINE, features=lambda samples: {"double": 2 * samples[:, 0]})
    assert features.features_of(spec)(np.ones((2, 1)))["double"].tolist() == [2, 2]
    named = replace(TABLE, features=lambda arrays: {"years": arrays["age"]})
    assert list(features.features_of(named)(Columns({"age": np.ones(2)}))) == ["years"]


def test_answers_are_labels_with_their_confidence_or_numbers() -> None:
    found = answers.measured(np.array([[0.25, 0.75], [1.0, 0.0], [np.nan, 1.0]], np.float32))
    assert found.codes["label"].tolist() == [1, 0, -1]
    assert found.confidence is not None
    assert found.confidence.tolist()[:2] == [0.75, 1.0]
    assert answers.measured(np.array([[2.0], [3.0]])).numbers["value"].tolist() == [2, 3]
    assert list(answers.measured(np.full((2, 3), 2.0)).numbers) == ["value 0", "value 1", "value 2"]
    assert answers.measured(np.full((2, MOST_LABELS + 1), 1 / (MOST_LABELS + 1))) == answers.Answers()
    both = Columns({"kind": np.array([[0.5, 0.5]]), "size": np.array([2.0]), "tags": [np.zeros(3)]})
    heads = answers.measured(both)
    assert (list(heads.codes), list(heads.numbers)) == (["kind"], ["size"])
    assert answers.names_of(HEADS, "kind", 2, {}) == ["cat", "dog"]
    assert answers.names_of(LINE, "label", 2, {"labels": ["no", "yes"]}) == ["no", "yes"]
    assert answers.names_of(LINE, "label", 3, {"labels": ["no", "yes"]}) == [0, 1, 2]


def classified(labels: Any) -> Array:
    """Probabilities of which the label is the greatest."""
    found: Array = np.eye(2)[np.asarray(labels)] * 0.8 + 0.1
    return found


def test_a_reference_counts_what_is_answered_in_its_own_bins() -> None:
    rows = RNG.normal(size=(400, 1))
    reference = measured(LINE, [rows[:200], rows[200:]], [classified([0, 1] * 50)], {"labels": ["no", "yes"]})
    assert [one.title for one in reference.distributions] == ["feature 0", "answers: label"]
    assert reference.confidence == pytest.approx(0.9)
    assert DriftReference.of_json(reference.as_json()).distributions == reference.distributions
    counts = counted(LINE, reference, rows[:100] + 99, classified([1] * 100))
    assert counts.parts[0][-2] == 100
    assert counts.parts[1].tolist() == [0, 100, 0]
    assert (counts.samples, counts.answers) == (100, 100)
    twice = DriftCounts.of_json((counts + counts).as_json())
    assert (twice.samples, twice.parts[1].tolist()) == (200, [0, 200, 0])
    assert twice.confidence == pytest.approx(180)


def test_a_feature_that_the_code_no_longer_has_is_not_counted() -> None:
    reference = measured(LINE, [NORMAL[:, None]], [], {})
    spec = replace(LINE, features=lambda samples: {"other": samples[:, 0]})
    assert counted(spec, reference, np.zeros((5, 1)), np.zeros((5, 1))).parts[0].sum() == 0


def test_few_samples_have_no_reference_and_features_must_be_numbers_of_each_sample() -> None:
    with pytest.raises(ValueError, match=f"fewer than {LEAST} samples"):
        measured(LINE, [np.zeros((LEAST - 1, 1))], [], {})
    for wrong in (lambda samples: {"x": samples}, lambda samples: {"x": np.full(len(samples), "a")}):
        with pytest.raises(ValueError, match="the feature x has to be one number for each sample"):
            measured(replace(LINE, features=wrong), [np.zeros((LEAST, 1))], [], {})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "a release that kept none"),
        ({"fault": "its splits are empty"}, "its splits are empty"),
        ({"distributions": [GOOD, GOOD]}, "the same name"),
        ({"distributions": [GOOD], "confidence": 2}, "no probability"),
        ({"distributions": [GOOD] * 200}, "a release that kept none"),
        ({"distributions": [{}]}, "no distribution"),
    ],
)
def test_a_record_without_a_reference_says_why(given: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DriftReference.of_json(given)


def test_the_standard_features_of_the_shipped_digits_are_their_ink() -> None:
    samples = mnist.SPEC.preprocess(mnist.SPEC.example)
    assert list(features.features_of(mnist.SPEC)(samples)) == [
        "ink mean", "ink area", "box height", "box width", "maximum",
    ]  # fmt: skip
