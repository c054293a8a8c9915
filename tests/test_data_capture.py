"""Capture off the path of requests: the writer, a database that is frozen, and what follows changed settings."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection
from starlette.testclient import TestClient

from models.spec import ModelSpec
from service.data import capture
from service.data.capture import MOST_ROWS, Capture, CaptureWriter
from service.data.capture_rows import MOST_BYTES
from service.data.captures import Captures
from service.data.sampled import Sampler, Waiting
from service.errors import StoreUnavailable
from service.store.database import Store
from service.telemetry.served import Observers
from tests.captured import ALL, START, prediction, served
from tests.fakes import LINE, save_line
from tests.serving import serving
from tests.waiting import until

PATIENCE_S = 240.0  # for a failure


class Away(Captures):
    """Captures of a database that is away until it is back."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.away = True
        self.sizes: list[int] = []
        self.repeats: list[bool] = []

    def insert(self, rows: Any, now: float, *, repeat: bool = True) -> int:
        self.repeats.append(repeat)
        if self.away:
            raise StoreUnavailable("the database is away")
        self.sizes.append(len(rows))
        return super().insert(rows, now, repeat=repeat)


class Scene:
    """A writer with its queue, and what was counted."""

    def __init__(self, store: Store, spec: ModelSpec = LINE, **options: Any) -> None:
        self.counted: dict[str, int] = {}
        self.captures = Away(store)
        self.captures.away = False
        self.captures.set("line", ALL, by="test", now=START)
        self.waiting = Waiting(most_rows=1_000)
        self.sampler = Sampler(self.waiting, self.count)
        self.sampler.rate = 1.0
        self.pauses: list[float] = []
        self.writer = CaptureWriter(
            {"line": spec}, self.captures, self.waiting, self.count, pause=self.pauses.append, **options
        )

    def queue(self, requests: int) -> None:
        for number in range(requests):
            self.sampler.ended(served(number))

    def count(self, model: str, outcome: str, samples: int) -> None:
        assert model == "line"
        self.counted[outcome] = self.counted.get(outcome, 0) + samples


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    return sqlite_store


def test_what_waits_is_written_in_transactions_of_at_most_200_rows(store: Store) -> None:
    scene = Scene(store, backend=lambda model, version: f"{model} {version}")
    for number in range(150):
        scene.sampler.ended(served(number, count=3))
    while scene.writer.write(START):
        pass
    assert scene.captures.sizes == [198, 198, 54]
    assert max(scene.captures.sizes) <= MOST_ROWS
    assert scene.counted == {"captured": 450}
    assert (scene.waiting.load.rows, len(scene.pauses)) == (0, 75)
    (first, *_) = scene.captures.of_prediction(prediction(0, version=4))
    assert (first.backend, first.said, first.version) == ("line 4", {"": {"value": 3.0}}, 4)


def test_the_writer_makes_gaps_for_the_event_loop_unless_it_is_behind(store: Store) -> None:
    scene = Scene(store)
    scene.queue(MOST_ROWS + 3)
    assert scene.writer.is_behind
    assert scene.writer.write(START) == MOST_ROWS
    assert set(scene.pauses) == {0}
    assert not scene.writer.is_behind  # the others wait for the next turn
    scene.pauses.clear()
    assert scene.writer.write(START) == 3
    assert len(scene.pauses) == 1
    scene.pauses.clear()
    for number in range(10):
        scene.sampler.ended(served(1_000 + number, count=1 if number < 6 else 7))
    scene.writer.write(START)
    assert len(scene.pauses) == 5  # before the first request, the sixth one, and each one after seven samples
    assert min(scene.pauses) > 0


@pytest.mark.parametrize(("rows", "may_wait"), [(0, False), (25, False), (26, True), (199, True), (200, False)])
def test_more_rows_than_a_transaction_costs_may_wait_until_one_is_full(store: Store, rows: int, may_wait: bool) -> None:
    scene = Scene(store)
    scene.queue(rows)
    assert scene.writer.may_wait is may_wait


def test_rows_of_a_transaction_that_failed_do_not_wait_for_others(store: Store) -> None:
    scene = Scene(store)
    scene.captures.away = True
    scene.queue(30)
    with pytest.raises(StoreUnavailable):
        scene.writer.write(START)
    assert not scene.writer.may_wait
    scene.captures.away = False
    scene.writer.write(START)
    scene.sampler.ended(served(30))
    scene.writer.write(START)
    assert scene.captures.repeats == [False, True, False]


class Patient(CaptureWriter):
    """A writer whose rows may wait until they may not: the looks at its queue, and the look of each write."""

    looks, ready = 0, False

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.written_at: list[int] = []

    @property
    def may_wait(self) -> bool:
        self.looks += 1
        return not self.ready

    def write(self, now: float) -> int:
        self.written_at.append(self.looks)
        return super().write(now)


@pytest.mark.parametrize("latest_s", [0.0, PATIENCE_S])
def test_rows_that_may_wait_are_written_once_they_are_many_or_late(
    store: Store, monkeypatch: pytest.MonkeyPatch, latest_s: float
) -> None:
    monkeypatch.setattr(capture, "TICK_S", 0.001)
    monkeypatch.setattr(capture, "LATEST_S", latest_s)
    waiting = Waiting()
    writer = Patient({"line": LINE}, Captures(store), waiting, lambda *_: None)

    async def go() -> None:
        async with Capture(Observers(), store, writer, waiting, lambda *_: None, lambda _: None):
            until(lambda: writer.looks >= 5)
            assert writer.written_at[:3] == ([1, 2, 3] if latest_s == 0 else [1])
            writer.ready = True
            until(lambda: len(writer.written_at) >= 4)

    asyncio.run(go())


@pytest.mark.slow
def test_while_the_database_is_away_memory_is_bounded_and_the_first_rows_are_written_afterwards(store: Store) -> None:
    """A minute at 2,000 requests a second; the writer tries again each second."""
    scene = Scene(store)
    scene.captures.away = True
    for number in range(120_000):
        scene.sampler.ended(served(number % 4_000))
        if number % 2_000 == 0:
            with pytest.raises(StoreUnavailable):
                scene.writer.write(START)
    assert scene.waiting.load.rows == 1_000
    assert scene.counted == {"dropped": 119_000}
    scene.captures.away = False
    while scene.writer.write(START):
        pass
    assert scene.counted["captured"] == 1_000
    assert scene.captures.settings_of("line").examples == 1_000


def test_at_the_end_what_cannot_be_written_is_counted_as_dropped(store: Store) -> None:
    scene = Scene(store)
    scene.captures.away = True
    scene.queue(300)
    with pytest.raises(StoreUnavailable):
        scene.writer.write(START)
    scene.writer.give_up()
    assert scene.counted == {"dropped": 300}
    assert (scene.waiting.load.rows, scene.waiting.load.bytes) == (0, 0)


def test_an_answer_that_cannot_be_described_is_counted_and_the_next_one_is_written(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(rows: Any) -> Any:
        if rows[0, 0] > 4:
            raise ValueError("a model author's code")
        return [{"value": row[0]} for row in rows]

    scene = Scene(store, ModelSpec(**{**vars(LINE), "describe": picky}))
    scene.sampler.ended(served(1, values=np.array([[5.0]], np.float32)))
    scene.sampler.ended(served(2))
    scene.writer.write(START)
    assert scene.counted == {"failed": 1, "captured": 1}
    assert "an answer was not captured" in caplog.text


def test_a_transaction_that_fails_is_counted_and_not_repeated(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(store)

    def broken(rows: Any, now: float, **_: Any) -> int:
        raise ValueError(f"{len(rows)} rows cannot be written at {now}")

    scene.captures.insert = broken  # type: ignore[method-assign]
    scene.sampler.ended(served(1))
    assert scene.writer.write(START) == 1
    assert scene.counted == {"failed": 1}
    assert "captures not written" in caplog.text
    assert scene.writer.write(START) == 0


def test_samples_that_are_too_large_or_have_no_finite_answer_are_dropped(store: Store) -> None:
    scene = Scene(store)
    entries = np.zeros((3, MOST_BYTES // 4), np.float32)
    scene.sampler.ended(served(1, count=3, entries=entries))
    values = np.array([[1.0], [np.nan]], np.float32)
    scene.sampler.ended(served(2, count=2, values=values))
    while scene.writer.write(START):
        pass
    assert scene.counted == {"dropped": 4, "captured": 1}
    (only,) = scene.captures.of_prediction(prediction(2, version=4))
    assert only.position == 0


def test_originals_belong_to_their_positions(store: Store) -> None:
    scene = Scene(store, originals=lambda one: {2: one.body, 5: b"x" * (5 * 2**20)})
    scene.sampler.originals = True
    scene.sampler.ended(served(1, count=2, positions=[2, 5], body=b"picture"))
    scene.writer.write(START)
    found = scene.captures.of_prediction(prediction(1, version=4))
    assert [(one.position, one.original) for one in found] == [(2, b"picture"), (5, None)]


def test_settings_are_followed_and_a_database_that_is_away_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> list[bool]:
        waiting, observers = Waiting(), Observers()
        captures = Captures(store)
        writer = CaptureWriter({"line": LINE}, captures, waiting, lambda *_: None)
        found = Capture(observers, store, writer, waiting, lambda *_: None, lambda _: None)
        seen = []
        for rate in (0.5, 0.0, 1.0):
            captures.set("line", ALL.__class__(rate=rate), by="me", now=START)
            await found.follow()
            seen.append(bool(observers))
        with monkeypatch.context() as patch:
            patch.setattr(Captures, "settings", away)
            await found.follow()
        return [*seen, bool(observers)]

    def away(_: Captures) -> Any:
        raise StoreUnavailable("away")

    assert asyncio.run(run()) == [True, False, True, True]


def polled(monkeypatch: pytest.MonkeyPatch, folder: Path, change: Callable[[TestClient, TestClient], None]) -> None:
    """Two services on one database, whose settings are read twenty times a second."""
    monkeypatch.setattr(capture, "POLL_S", 0.05)
    save_line(folder / "shipped")
    with (
        serving(folder / "shipped", {"line": LINE}, store=folder / "store") as one,
        serving(folder / "shipped", {"line": LINE}, store=folder / "store") as other,
    ):
        change(one, other)


@pytest.mark.slow
def test_another_process_follows_the_settings_by_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert capture.POLL_S <= 1.0

    def change(one: TestClient, other: TestClient) -> None:
        one.put("/models/line/capture", json={"rate": 1.0})

        def captured_by_the_other() -> bool:
            identity = other.post("/predict/line", json={"inputs": [[1.0]]}).json()["id"]
            return identity is not None and one.get("/models/line/capture").json()["examples"] > 0

        until(captured_by_the_other)

    polled(monkeypatch, tmp_path, change)


def test_a_frozen_database_fails_no_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thawed, write = threading.Event(), Store.write
    in_vain: list[str] = []

    def frozen(store: Store, **how: bool) -> AbstractContextManager[Connection]:
        if not thawed.wait(PATIENCE_S):
            in_vain.append(threading.current_thread().name)
        return write(store, **how)

    save_line(tmp_path / "shipped")
    with serving(tmp_path / "shipped", {"line": LINE}, store=tmp_path / "store") as client:
        client.put("/models/line/capture", json={"rate": 1.0})
        monkeypatch.setattr(Store, "write", frozen)
        try:
            answers = [client.post("/predict/line", json={"inputs": [[1.0]]}).json() for _ in range(50)]
        finally:
            thawed.set()
        assert all(answer["predictions"] == [{"value": 3.0}] for answer in answers)
        assert not in_vain, "an answer waited for the database"
        until(lambda: client.get("/models/line/capture").json()["examples"] == 50)
