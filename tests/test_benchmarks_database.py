"""The benchmark of the database: what it counts."""

import math

import pytest
from sqlalchemy import func, select

from benchmarks.database import ask, capturing
from service.data.capture import MOST_ROWS
from service.errors import StoreUnavailable
from service.store.database import Store
from service.store.tables import captures


def test_each_piece_of_work_is_timed_and_refusals_are_counted_apart() -> None:
    done = []

    def refused() -> None:
        raise StoreUnavailable("away")

    seen = ask([lambda: done.append(1), refused], seconds=0.2)
    assert seen.refused > 0
    assert len(done) > 1
    assert 0 < seen.rate < math.inf
    assert 0 < seen.p50_ms <= seen.p99_ms


def test_work_with_an_interval_is_not_done_more_often() -> None:
    done = []
    ask([lambda: done.append(1)], seconds=0.3, every_s=0.1)
    assert len(done) <= 4


def test_a_fault_of_the_benchmark_itself_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException | None] = []
    monkeypatch.setattr("threading.excepthook", lambda args: raised.append(args.exc_value))

    def broken() -> None:
        raise ValueError("broken")

    assert math.isnan(ask([broken], seconds=60).p50_ms)  # it ends with the first error
    assert [type(err) for err in raised] == [ValueError]


def test_each_transaction_of_captures_writes_as_many_new_rows(sqlite_store: Store) -> None:
    capture = capturing(sqlite_store)
    for _ in range(2):
        capture()
    with sqlite_store.read() as connection:
        assert connection.execute(select(func.count()).select_from(captures)).scalar_one() == 2 * MOST_ROWS
