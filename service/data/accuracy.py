"""Accuracy of a version on live requests, estimated from audits and outcomes.

Corrections are counted apart: people report wrong answers. If 30% of the wrong and 2% of the right answers of a version
with an accuracy of 95% are reported back, 56% of these reports are right.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select

from service.data import capture_settings
from service.data.feedback import STATES
from service.store.tables import captures, feedback

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of that confidence, two-sided
POINTS = 12  # parts of a window
_CALIBRATED = 0.05  # greatest calibration error of a version whose confidence is its accuracy
_ENOUGH = 50  # labelled answers that can show whether it still is
_SLACK = 0.02  # that the confidence may be outside of the interval then


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A share or a mean with its interval of 95%."""

    value: float
    low: float
    high: float
    labelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A part of the window. `accuracy` and `error` are None without labelled answers, or of another kind of model."""

    begin: float
    end: float
    captured: int
    labelled: int
    accuracy: Estimate | None
    error: Estimate | None
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Accuracy that the answers' own probabilities promise: their mean. `valid` while the version is calibrated."""

    accuracy: float
    valid: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What callers have reported by themselves, and how many of these answers were right: no estimate of anything."""

    count: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Figures of a version over a window. `error` is the mean absolute error of values."""

    begin: float
    end: float
    captured: int
    labelled: int
    share_labelled: float | None
    accuracy: Estimate | None
    error: Estimate | None
    by_kind: Mapping[str, int]
    corrections: Corrections
    expected: Expected | None
    points: Sequence[Point]


def wilson(right: int, labelled: int) -> Estimate:
    """Return a share with its Wilson score interval; `labelled` is at least 1."""
    share, z2 = right / labelled, _Z**2
    middle = (share + z2 / (2 * labelled)) / (1 + z2 / labelled)
    half = _Z / (1 + z2 / labelled) * math.sqrt(share * (1 - share) / labelled + z2 / (4 * labelled**2))
    return Estimate(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half), labelled=labelled)


def mean(numbers: Sequence[float]) -> Estimate:
    """Return the mean of at least two numbers that are not negative, with its normal interval."""
    n, value = len(numbers), math.fsum(numbers) / len(numbers)
    half = _Z * math.sqrt(math.fsum((number - value) ** 2 for number in numbers) / (n - 1) / n)
    return Estimate(value=value, low=max(0.0, value - half), high=value + half, labelled=n)


def measured(
    connection: Connection, model: str, version: int, begin: float, end: float, metrics: Mapping[str, float]
) -> Accuracy:
    """Return the figures of a version over the answers of requests from `begin` to `end`.

    `metrics` are those of the version's record: its calibration error decides whether its confidence can be trusted.
    """
    counts = _counts(connection, model, version, begin, end)
    labels = _labels(connection, model, version, begin, end)
    captured, whole = sum(part.captured for part in counts), _figures(labels)
    width = (end - begin) / POINTS
    points = []
    for place, part in enumerate(counts):
        inside = [label for label in labels if place == min(POINTS - 1, int((label.at - begin) / width))]
        found = _figures(inside)
        points.append(
            Point(
                begin=begin + place * width,
                end=begin + (place + 1) * width,
                captured=part.captured,
                labelled=len(inside),
                accuracy=found.accuracy,
                error=found.error,
                confidence=part.confidence,
            )
        )
    return Accuracy(
        begin=begin,
        end=end,
        captured=captured,
        labelled=len(labels),
        share_labelled=len(labels) / captured if captured else None,
        accuracy=whole.accuracy,
        error=whole.error,
        by_kind={kind: sum(label.kind == kind for label in labels) for kind in ("audit", "outcome")},
        corrections=_corrections(connection, model, version, begin, end),
        expected=_expected(counts, labels, whole.accuracy, metrics),
        points=points,
    )


@dataclass(frozen=True, slots=True)
class _Count:
    captured: int
    confidence: float | None
    with_confidence: int


@dataclass(frozen=True, slots=True)
class _Label:
    kind: str
    at: float
    was_right: bool | None
    error: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class _Figures:
    accuracy: Estimate | None = None
    error: Estimate | None = None


def _figures(labels: Sequence[_Label]) -> _Figures:
    judged = [label.was_right for label in labels if label.was_right is not None]
    errors = [label.error for label in labels if label.error is not None]
    return _Figures(wilson(sum(judged), len(judged)) if judged else None, mean(errors) if len(errors) > 1 else None)


def _counts(connection: Connection, model: str, version: int, begin: float, end: float) -> list[_Count]:
    """Count the captures in each part of the window, from the index alone."""
    width, columns = (end - begin) / POINTS, []
    whole = captures.c.number >= capture_settings.read_one(connection, model).whole_from
    for place in range(POINTS):
        first, last = begin + place * width, (end if place == POINTS - 1 else begin + (place + 1) * width)
        inside = (captures.c.at >= first) & (captures.c.at < last)
        probability = case((inside & whole, captures.c.probability))
        columns += [func.sum(case((inside, 1), else_=0)), func.avg(probability), func.count(probability)]
    query = select(*columns).where(
        captures.c.model == model,
        captures.c.state.in_(STATES),
        captures.c.version == version,
        captures.c.at >= begin,
        captures.c.at < end,
    )
    row = connection.execute(query).one()
    return [_Count(int(row[at] or 0), row[at + 1], int(row[at + 2])) for at in range(0, len(columns), 3)]


def _labels(connection: Connection, model: str, version: int, begin: float, end: float) -> list[_Label]:
    """Return the labelled answers, each once: an audit wins over an outcome. Only random samples count."""
    told = feedback.c
    query = (
        select(told.capture, told.kind, told.was_right, told.error, captures.c.at, captures.c.probability)
        .join(captures, captures.c.number == told.capture)
        .where(
            *_current(model, version),
            told.kind.in_(("audit", "outcome")),
            told.drawn == "random",
            captures.c.at >= begin,
            captures.c.at < end,
            captures.c.state != "gone",
        )
        .order_by(told.kind.desc())  # outcomes first: audits replace them
    )
    rows = {row.capture: row for row in connection.execute(query)}
    return [_Label(row.kind, row.at, row.was_right, row.error, row.probability) for row in rows.values()]


def _corrections(connection: Connection, model: str, version: int, begin: float, end: float) -> Corrections:
    query = (
        select(func.count(), func.sum(case((feedback.c.was_right, 1), else_=0)))
        .join(captures, captures.c.number == feedback.c.capture)
        .where(
            *_current(model, version),
            feedback.c.kind == "correction",
            captures.c.at >= begin,
            captures.c.at < end,
            captures.c.state != "gone",
        )
    )
    count, right = connection.execute(query).one()
    return Corrections(count=count, right=int(right or 0))


def _current(model: str, version: int) -> list[Any]:
    return [feedback.c.model == model, feedback.c.version == version, feedback.c.replaced_at.is_(None)]


def _expected(
    counts: Sequence[_Count], labels: Sequence[_Label], accuracy: Estimate | None, metrics: Mapping[str, float]
) -> Expected | None:
    """Return the mean confidence of all captured answers, and whether it stands for their accuracy."""
    known = sum(part.with_confidence for part in counts)
    if not known:
        return None
    value = math.fsum((part.confidence or 0.0) * part.with_confidence for part in counts) / known
    valid, reason = _calibrated(labels, accuracy, metrics.get("calibration_error"))
    return Expected(accuracy=value, valid=valid, reason=reason)


def _calibrated(labels: Sequence[_Label], accuracy: Estimate | None, error: float | None) -> tuple[bool, str]:
    """Return whether confidence and accuracy agree: on the labelled answers if these are enough, else in training."""
    sure = [label.confidence for label in labels if label.confidence is not None and label.was_right is not None]
    if accuracy is not None and len(sure) >= _ENOUGH:
        confidence = math.fsum(sure) / len(sure)
        agrees = accuracy.low - _SLACK <= confidence <= accuracy.high + _SLACK
        verb = "agree" if agrees else "disagree"
        return (
            agrees,
            f"{len(sure)} labelled answers {verb}: accuracy {accuracy.value:.3f}, confidence {confidence:.3f}",
        )
    few = f"fewer than {_ENOUGH} labelled answers"
    if error is None:
        return False, f"{few}, and the version has no calibration_error among its metrics"
    word = "at most" if error <= _CALIBRATED else "above"
    return error <= _CALIBRATED, f"{few}; the version's calibration_error is {error:.3f}, {word} {_CALIBRATED:g}"
