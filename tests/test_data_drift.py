"""The statistic of drift by simulation, its counts in the database, and the counter."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.drift_windows import above_a_fixed_limit, above_its_limit, has_drifted, rate, shares
from models.checkpoints.record import Record
from models.drift.distribution import Distribution
from models.drift.reference import DriftCounts, DriftReference, measured
from models.spec import ModelSpec
from service.data.drift import Drift, compared, drift_of, judged
from service.data.drift_counter import DriftCounter
from service.data.drift_psi import ALPHA, chi_square, limit, psi
from service.data.drift_rows import DAY, MINUTE_S, DriftRows, Place
from service.data.drift_states import DriftStates
from service.errors import NotFound, StoreUnavailable
from service.store.database import Store
from service.store.tables import versions
from service.telemetry.served import Observers, Served
from tests.line import LINE

TRAIN = np.random.default_rng(1).normal(size=(20_000, 1))
REFERENCE = measured(LINE, [TRAIN], [], {})
FEATURE = REFERENCE.distributions[0]


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 12, 30, 100])
@pytest.mark.parametrize("share", [0.95, 0.999, 0.99999])
def test_the_quantile_of_chi_square_is_nearly_right(freedom: int, share: float) -> None:
    assert chi_square(share, freedom) == pytest.approx(
        stats.chi2.ppf(share, freedom), rel=0.02 if share < 0.9999 else 0.06
    )


@pytest.mark.parametrize("samples", [200, 500, 1000])
def test_a_window_without_drift_is_rarely_beyond_the_limit_whatever_its_size(samples: int) -> None:
    assert rate(samples, 0, above_its_limit) <= 0.003  # 0.1% of 2,000 windows, and three standard deviations


@pytest.mark.parametrize(("samples", "least", "most"), [(100, 0, 0.15), (200, 0.2, 0.5), (500, 0.9, 1), (1000, 1, 1)])
def test_a_shift_of_0_3_standard_deviations_is_beyond_the_limit_of_large_windows(
    samples: int, least: float, most: float
) -> None:
    assert least <= rate(samples, 0.3, above_its_limit) <= most


def test_a_fixed_limit_is_exceeded_without_drift_by_a_third_of_the_windows_of_100_samples() -> None:
    assert rate(100, 0, above_a_fixed_limit) > 0.2


@pytest.mark.parametrize("samples", [400, 1000, 5000])
def test_no_drift_is_no_alarm(samples: int) -> None:
    assert rate(samples, 0, has_drifted) <= 0.001


def test_a_shift_of_0_3_standard_deviations_is_found_within_1000_samples() -> None:
    assert rate(1000, 0.3, has_drifted) >= 0.98


def test_a_small_shift_is_no_drift_however_sure_it_is() -> None:
    assert rate(100_000, 0.1, above_its_limit) == 1
    assert rate(100_000, 0.1, has_drifted) == 0


@pytest.mark.many
@pytest.mark.parametrize("rows", [100, 1000])
def test_small_references_have_higher_limits(rows: int) -> None:
    """The reference is drawn anew for each window: that of a version errs in one direction."""
    alarms, rng = 0, np.random.default_rng(7)
    for _ in range(1000):
        one = Distribution.of_numbers("feature", "x", rng.normal(size=rows))
        assert one is not None
        first, second = rng.multinomial(500, shares(one, 0), size=2)
        alarms += compared(one, first, second, 1).has_drifted
    assert alarms <= 6


def test_psi_is_that_of_the_definition_and_empty_bins_do_not_make_it_infinite() -> None:
    assert psi(np.array([50, 50]), np.array([50, 50])) == 0
    assert psi(np.array([500, 500]), np.array([600, 400])) == pytest.approx(0.1 * np.log(1.2) - 0.1 * np.log(0.8))
    assert psi(np.array([0, 0]), np.array([1, 1])) == psi(np.array([1, 1]), np.array([0, 0])) == 0
    assert 5 < psi(np.array([1000, 0]), np.array([0, 1000])) < 100
    assert psi(np.array([100_000, 1]), np.array([200, 0])) < 1e-4
    assert limit(np.array([1]), np.array([0]), ALPHA) == np.inf


def minutes(*samples: tuple[int, float]) -> list[tuple[int, DriftCounts]]:
    """Counts of minutes: how many samples, and their shift."""
    rng = np.random.default_rng(7)
    return [
        (minute, DriftCounts(count, [rng.multinomial(count, shares(FEATURE, shift))]))
        for minute, (count, shift) in enumerate(samples)
    ]


@pytest.mark.parametrize(
    ("samples", "state"),
    [
        ([], "too few samples"),
        ([(150, 0)], "too few samples"),
        ([(300, 0), (300, 0)], "stable"),
        ([(300, 2), (300, 2)], "drift"),
        ([(600, 2)], "suspected"),  # one minute
        ([(150, 2), (150, 2)], "suspected"),  # halves too small
        ([(500, 0), (500, 0), (300, 2)], "suspected"),  # a burst
        ([(10, 2)] * 60, "drift"),
    ],
)
def test_drift_is_what_both_halves_of_a_window_show(samples: list[tuple[int, float]], state: str) -> None:
    assert judged(REFERENCE, minutes(*samples), 0, 60).state == state


def test_counts_of_another_reference_are_left_out() -> None:
    odd = DriftCounts(9, [np.ones(3, np.int64)])
    assert judged(REFERENCE, [(0, odd), *minutes((5, 0))], 0, 60).counts.samples == 5


def row(store: Store, version: int, reference: DriftReference | None = REFERENCE, **values: Any) -> None:
    """The row of a version with that reference."""
    record = Record(model="line", sha256="0", drift={} if reference is None else reference.as_json())
    with store.write() as connection:
        given = {"model": "line", "version": version, "created_at": 1.0, "job": None, "path": "x"}
        connection.execute(versions.insert().values(**given, record=asdict(record), **values))


def counts(samples: int) -> DriftCounts:
    return minutes((samples, 0))[0][1]


def test_counts_are_added_to_their_minute_and_minutes_become_hours_and_go(store: Store) -> None:
    rows = DriftRows(store)
    now = 100 * DAY
    places = [Place("line", 1, now - 1), Place("line", 1, now - DAY - 61), Place("line", 1, now - DAY - 62)]
    rows.add({place: counts(3) for place in [*places, Place("line", 1, now - 31 * DAY), Place("line", 2, now)]})
    rows.add({places[0]: counts(2)})
    rows.tidy(now, keep_days=30)
    found = rows.between("line", 1, 0, now + 1)
    assert [(minute, one.samples) for minute, one in found] == [(now - DAY - 120, 6), (now - 1, 5)]
    rows.tidy(now, keep_days=30)
    assert len(rows.between("line", 1, 0, now + 1)) == 2


@pytest.mark.slow
def test_many_minutes_are_merged_a_few_at_a_time(sqlite_store: Store) -> None:
    rows = DriftRows(sqlite_store)
    rows.add({Place("line", 1, minute): counts(1) for minute in range(500)})
    rows.tidy(10 * DAY, keep_days=30)
    assert [one.samples for _, one in rows.between("line", 1, 0, DAY)] == [60] * 8 + [20]


def test_a_version_without_a_reference_says_why(sqlite_store: Store) -> None:
    row(sqlite_store, 1, None)
    row(sqlite_store, 2, pruned_at=5.0)
    for version, reason in ((1, "a release that kept none"), (2, "pruned")):
        with pytest.raises(ValueError, match=reason):
            drift_of(DriftRows(sqlite_store), "line", version, 3600, 0)
    with pytest.raises(NotFound, match="no version 3"):
        drift_of(DriftRows(sqlite_store), "line", 3, 3600, 0)


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.seconds = 600_000.0

    def __call__(self) -> float:
        return self.seconds


class Counting:
    """A counter of the model `line` whose thread is not started, and what its metrics were set to."""

    def __init__(self, rows: DriftRows, spec: ModelSpec = LINE) -> None:
        self.clock, self.observers, self.live = Clock(), Observers(), 1
        self.shown: list[tuple[str, Drift | None]] = []
        self.rows = rows
        self.counter = DriftCounter(
            {"line": spec},
            self.observers,
            rows,
            DriftStates(rows._store),
            live=lambda _: self.live,
            show=lambda model, found: self.shown.append((model, found)),
            keep_days=30,
            now=self.clock,
        )

    def see(self, *requests: Served) -> int:
        """Show requests to the counter, and return how many wait for its thread."""

        async def run() -> None:
            self.counter._watches["line"].begin()
            for request in requests:
                await show(self.observers, request)

        asyncio.run(run())
        return len(self.counter._queue)


async def show(observers: Observers, request: Served) -> None:
    """Show a request to the observers that want it."""
    observers.show(request, observers.interested("line", {}, ""))
    await asyncio.sleep(0)


def served(samples: Any, values: Any = None, version: int | None = 1, error: Exception | None = None) -> Served:
    return Served(
        model="line",
        stem="",
        version=version,
        headers={},
        media_type="",
        body=b"",
        samples=samples,
        positions=range(len(samples)),
        values=samples if values is None and error is None else values,
        error=error,
        route="/predict/{model}",
        batch_size=len(samples),
        queue_s=0.0,
        forward_s=0.0,
        total_s=0.0,
    )


@pytest.fixture
def counting(sqlite_store: Store) -> Counting:
    row(sqlite_store, 1)
    row(sqlite_store, 2, None)
    return Counting(DriftRows(sqlite_store))


def test_one_request_in_ten_milliseconds_is_counted(counting: Counting) -> None:
    assert counting.see(*[served(TRAIN[:2])] * 5) == 1
    assert not counting.observers  # for ten milliseconds: the others cost nothing


def test_failed_requests_are_not_counted(counting: Counting) -> None:
    assert counting.see(served(TRAIN[:2], error=ValueError("no"))) == 0
    assert counting.see(served(TRAIN[:2], version=None)) == 0


def test_counts_are_written_once_a_minute_and_shown_by_metrics(counting: Counting) -> None:
    counting.see(served(TRAIN[:300]))
    counting.counter.step()
    assert counting.rows.between("line", 1, 0, 20_000) == []
    counting.clock.seconds += MINUTE_S
    counting.see(served(TRAIN[:300] + 9))
    counting.counter.step()
    ((model, found),) = counting.shown
    assert model == "line"
    assert found is not None
    assert (found.counts.samples, found.state) == (600, "suspected")
    counting.clock.seconds += 2 * 3600
    counting.counter.step()
    assert counting.shown[-1] == ("line", None)  # the hour is over


def test_another_live_version_has_no_metrics_of_the_one_before(counting: Counting) -> None:
    counting.see(served(TRAIN[:300]))
    counting.clock.seconds += MINUTE_S
    counting.counter.step()
    counting.live = 2
    counting.clock.seconds += MINUTE_S
    counting.counter.step()
    assert [found is None for _, found in counting.shown] == [False, True]


def test_a_version_without_a_reference_is_looked_at_once(counting: Counting, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        for _ in range(2):
            counting.see(served(TRAIN[:2], version=2), served(TRAIN[:2], version=3))
            counting.counter.step()
    assert caplog.text.count("no reference") == 1
    assert counting.see(served(TRAIN[:2], version=2)) == 0


def test_features_that_fail_end_the_counts_of_their_version(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> Mapping[str, Any]:
        raise ZeroDivisionError

    row(sqlite_store, 1)
    counting = Counting(DriftRows(sqlite_store), replace(LINE, features=broken))
    for _ in range(2):
        counting.see(served(TRAIN[:2]))
        counting.counter.step()
    assert caplog.text.count("the model's features failed") == 1


def test_large_samples_are_cut_and_the_queue_is_bounded(counting: Counting) -> None:
    large = np.zeros((3_000_000, 1))
    assert counting.see(served(large)) == 1
    assert len(counting.counter._queue[0].samples) == 2**22 // 8
    for _ in range(9):
        counting.see(served(large))
    assert len(counting.counter._queue) == 5  # 16 MiB, and the one that exceeds them


def test_while_the_database_is_away_counts_wait_for_it(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    counting.see(served(TRAIN[:10]))
    counting.counter.step()

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as context:
        context.setattr(counting.rows, "add", away)
        for _ in range(3):
            counting.clock.seconds += MINUTE_S
            counting.counter.step()
    counting.clock.seconds += MINUTE_S
    counting.counter.step()
    assert [one.samples for _, one in counting.rows.between("line", 1, 0, 20_000)] == [10]


def test_the_thread_writes_what_is_counted_when_it_ends(counting: Counting) -> None:
    async def run() -> None:
        async with counting.counter:
            await show(counting.observers, served(TRAIN[:10]))

    asyncio.run(run())
    assert [one.samples for _, one in counting.rows.between("line", 1, 0, 20_000)] == [10]
    assert not counting.observers
