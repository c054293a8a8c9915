"""Accuracy by audits and outcomes: intervals, and what corrections alone would show."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from service.data.accuracy import POINTS, Accuracy, mean, measured, wilson
from service.data.capture_retention import CaptureRetention
from service.data.feedback import Drawn, Entry, Feedback, Kind
from service.store.database import Store
from tests.captured import ALL, START, captured, prediction, registered, row

HOUR = 3_600.0


def told(number: int, truth: object, kind: Kind, drawn: Drawn = "random") -> Entry:
    return Entry(id=prediction(number), key=None, position=0, truth=truth, kind=kind, drawn=drawn, by="me")


def of(store: Store, metrics: dict[str, float] | None = None, version: int = 1) -> Accuracy:
    with store.read() as connection:
        return measured(connection, "line", version, START - HOUR, START + HOUR, metrics or {})


def add(store: Store, rows: Sequence[dict[str, object]], entries: Sequence[Entry]) -> None:
    registered(store, 1)
    captured(store, rows)
    assert set(Feedback(store).add("line", entries, START)) <= {"captured"}


def test_the_interval_of_a_share_is_that_of_wilson() -> None:
    """Numbers of Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 15 of 148."""
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        found = wilson(right, n)
        assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)


def test_the_interval_of_a_share_covers_the_truth_in_nineteen_of_twenty_cases() -> None:
    rng = np.random.default_rng(0)
    found = [wilson(int(right), 200) for right in rng.binomial(200, 0.95, 2_000)]
    assert np.mean([one.low <= 0.95 <= one.high for one in found]) == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_a_mean() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert (found.value, found.labelled) == (2.0, 3)
    assert found.high - found.value == pytest.approx(1.96 / np.sqrt(3), abs=1e-3)


@pytest.mark.slow
def test_audits_find_the_accuracy_that_corrections_hide(store: Store) -> None:
    """With 95% right, 30% of the wrong and 2% of the right answers reported back, 56% of the reports are right."""
    rng = np.random.default_rng(1)
    n = 4_000
    right = rng.random(n) < 0.95
    reported = rng.random(n) < np.where(right, 0.02, 0.3)
    audited = rng.random(n) < 0.1
    truth = [7 if one else 3 for one in right]
    entries = [told(number, truth[number], "correction") for number in np.flatnonzero(reported).tolist()]
    entries += [told(number, truth[number], "audit") for number in np.flatnonzero(audited).tolist()]
    registered(store, 1)
    captures = captured(store, [])
    rows = [row(number) for number in range(n)]
    for begin in range(0, n, 1000):
        captures.insert(rows[begin : begin + 1000], START)
    Feedback(store).add("line", entries, START)
    found = of(store)
    assert found.accuracy is not None
    assert found.accuracy.low < 0.95 < found.accuracy.high
    assert found.corrections.right / found.corrections.count == pytest.approx(0.56, abs=0.06)
    assert (found.captured, found.labelled) == (n, int(audited.sum()))
    assert found.share_labelled == pytest.approx(0.1, abs=0.02)


def test_audits_of_uncertain_answers_and_replaced_ones_do_not_count(store: Store) -> None:
    entries = [told(1, 7, "audit"), told(1, 3, "audit"), told(2, 3, "audit", "uncertain"), told(3, 7, "outcome")]
    add(store, [row(number) for number in (1, 2, 3)], entries)
    found = of(store)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.labelled, found.by_kind) == (0.5, 2, {"audit": 1, "outcome": 1})


def test_a_sample_that_was_drawn_at_random_stays_one_if_it_is_audited_again(store: Store) -> None:
    add(store, [row(1), row(2)], [told(1, 7, "audit"), told(2, 3, "audit", "uncertain")])
    Feedback(store).add("line", [told(1, 3, "audit", "uncertain"), told(2, 3, "audit")], START + 1)
    found = of(store)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.labelled) == (0.0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["audit", "outcome"])
def test_samples_that_retention_keeps_for_their_corrections_bias_no_accuracy(store: Store, kind: Kind) -> None:
    """30% of the wrong and 2% of the right answers are corrected, and stay longer than the others."""
    rng = np.random.default_rng(2)
    right = rng.random(1_500) < 0.95
    reported = rng.random(1_500) < np.where(right, 0.02, 0.3)
    truth = [7 if one else 3 for one in right]
    registered(store, 1)
    captures = captured(store, [], replace(ALL, max_examples=150))
    feedback, retention = Feedback(store), CaptureRetention(store)
    for begin in range(0, 1_500, 150):
        some = range(begin, begin + 150)
        captures.insert([row(number) for number in some], START)
        feedback.add("line", [told(number, truth[number], "correction") for number in some if reported[number]], START)
        while retention.step(START):
            pass
    drawn, _ = captures.page("line", unlabelled=True, order="random", version=None, limit=150, after=None)
    numbers = [int(one.id.split("-")[2], 16) - 1 for one in drawn]
    labelled = numbers if kind == "audit" else list(range(1_500))
    feedback.add("line", [told(number, truth[number], kind) for number in labelled], START)
    found = of(store)
    assert found.captured == 150
    assert found.accuracy is not None
    assert found.accuracy.labelled == len(numbers) > 70
    assert found.accuracy.low < 0.95 < found.accuracy.high


def test_an_answer_with_audit_and_outcome_counts_once_by_its_audit(store: Store) -> None:
    add(store, [row(1)], [told(1, 3, "audit"), told(1, 7, "outcome")])
    found = of(store)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.labelled) == (0.0, 1)


def test_values_have_a_mean_absolute_error(store: Store) -> None:
    said = {"": {"value": 2.0}}
    rows = [row(number, said=said, probability=None) for number in (1, 2, 3)]
    add(store, rows, [told(1, 2.5, "outcome"), told(2, 1.0, "outcome")])
    found = of(store)
    assert found.error is not None
    assert (found.error.value, found.accuracy, found.expected) == (0.75, None, None)


def test_without_labelled_answers_there_is_no_figure(store: Store) -> None:
    add(store, [], [])
    found = of(store)
    assert (found.captured, found.share_labelled, found.accuracy, found.error) == (0, None, None, None)
    assert found.expected is None


def test_a_window_has_twelve_points_over_time(store: Store) -> None:
    early, late = START - HOUR + 1, START + HOUR - 1
    add(store, [row(1, at=early), row(2, at=late, probability=0.5), row(3, at=START + 2 * HOUR)], [])
    Feedback(store).add("line", [replace(told(2, 7, "audit"), id=prediction(2, late))], START)
    found = of(store)
    assert len(found.points) == POINTS
    assert [point.captured for point in found.points] == [1, *[0] * 10, 1]
    assert [point.labelled for point in found.points] == [*[0] * 11, 1]
    assert (found.points[0].confidence, found.points[-1].confidence) == (0.9, 0.5)
    assert found.points[-1].end == START + HOUR


def test_only_answers_of_the_version_count(store: Store) -> None:
    add(store, [row(1), row(2, version=2)], [told(1, 7, "audit")])
    assert of(store, version=2).captured == 1
    assert of(store, version=2).accuracy is None


@pytest.mark.parametrize(
    ("metrics", "valid", "words"),
    [
        ({"calibration_error": 0.01}, True, "calibration_error is 0.010, at most 0.05"),
        ({"calibration_error": 0.2}, False, "calibration_error is 0.200, above 0.05"),
        ({}, False, "no calibration_error among its metrics"),
    ],
)
def test_the_expected_accuracy_is_valid_for_a_calibrated_version(
    store: Store, metrics: dict[str, float], valid: bool, words: str
) -> None:
    add(store, [row(1, probability=0.8), row(2, probability=1.0)], [])
    expected = of(store, metrics).expected
    assert expected is not None
    assert expected.accuracy == pytest.approx(0.9)
    assert expected.valid is valid
    assert words in expected.reason


@pytest.mark.parametrize(("wrong", "valid"), [(6, True), (20, False)])
def test_enough_labelled_answers_decide_whether_the_confidence_holds(store: Store, wrong: int, valid: bool) -> None:
    entries = [told(number, 3 if number < wrong else 7, "audit") for number in range(60)]
    add(store, [row(number) for number in range(60)], entries)
    expected = of(store, {"calibration_error": 0.2 if valid else 0.01}).expected
    assert expected is not None
    assert expected.valid is valid
    assert "60 labelled answers" in expected.reason
