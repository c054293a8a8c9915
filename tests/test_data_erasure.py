"""Erasure of captures: what goes, what is named, and that no copy is left in the files of the database."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from service.data import captures as table
from service.data.capture_retention import remove
from service.data.erasure import Erasure, Which
from service.data.feedback import Feedback, truths
from service.delivery.trials import Trials
from service.errors import Invalid
from service.store.database import Store
from service.store.tables import capture_erasures, datasets, feedback
from service.store.tables import captures as rows_table
from tests.captured import START, captured, entry, held, ids, of_job, prediction, registered, row
from tests.templates import migrated
from tests.trials import differ, opened

DAY = 86_400.0
SEED = 7  # with SQLite 3.40, secure_delete alone leaves bytes of two erased samples


def test_an_erasure_names_the_datasets_and_versions_that_know_the_samples(store: Store) -> None:
    captures = captured(store, [row(1, key="a"), row(1, position=1, key="a"), row(2, key="b")])
    of_job(store, "j1", "field@2", version=5)
    of_job(store, "j2", "field@3", version=6)
    (first, _) = captures.of_prediction(prediction(1))
    with store.write() as connection:
        table.use(connection, "j1", [first.number])
        for version, parent in ((2, None), (3, "field@2")):
            connection.execute(
                datasets.insert().values(
                    model="line",
                    name="field",
                    version=version,
                    created_at=START,
                    job=f"j{version - 1}",
                    sha256="d" * 64,
                    folder="none",
                    source="s",
                    parent=parent,
                    summary={},
                )
            )
    done = Erasure(store).erase("line", Which(id=prediction(1)), START)
    assert (done.erased, done.in_datasets, done.trained) == (2, ["field@2", "field@3"], [5, 6])
    again = Erasure(store).erase("line", Which(id=prediction(1)), START)
    assert (again.erased, again.in_datasets) == (0, [])
    assert held(store) == (1, row(2)["bytes"])
    gone = captures.of_prediction(prediction(1))
    assert [(one.content, one.said, one.key, one.erased_at) for one in gone] == [(None, None, None, START)] * 2
    assert ids(captures) == [prediction(2)]


def test_captures_are_erased_by_key_and_by_time(store: Store) -> None:
    captures = captured(store, [row(1, key="a"), row(2, key="b"), row(3, at=START + 100), row(4, at=START + 200)])
    erasure = Erasure(store)
    assert erasure.erase("line", Which(key="b"), START).erased == 1
    assert erasure.erase("line", Which(until=START + 150), START).erased == 2
    assert ids(captures) == [prediction(4, START + 200)]


def test_truths_that_wait_for_captures_before_that_time_are_erased_with_them(store: Store) -> None:
    registered(store, 1)
    captured(store, [])
    late = START + 100
    told = [entry(1), entry(2, id=prediction(2, late)), entry(0, id=None, key="early")]
    assert Feedback(store).add("line", told, START) == ["not yet"] * 3
    Feedback(store).add("line", [entry(0, id=None, key="late")], late)
    Erasure(store).erase("line", Which(until=late), late)
    with store.read() as connection:
        left = connection.execute(select(feedback.c.id, feedback.c.key)).all()
    assert left == [(prediction(2, late), None), (None, "late")]


@pytest.mark.parametrize(
    "which", [Which(id=prediction(1)), Which(key="a"), Which(until=START + 0.001)], ids=["id", "key", "time"]
)
def test_the_answers_that_trials_have_noted_are_erased(store: Store, which: Which) -> None:
    trial = opened(store)
    captured(store, [row(1, key="a"), row(2, at=START + 0.001)])
    differ(trial, store, [prediction(1), prediction(2, START + 0.001)])
    Erasure(store).erase("other", which, START)
    assert len(Trials(store).differences(trial.id, 9)) == 2
    Erasure(store).erase("line", which, START)
    assert [one.prediction for one in Trials(store).differences(trial.id, 9)] == [prediction(2, START + 0.001)]


def test_what_was_erased_before_it_was_written_is_not_written(store: Store) -> None:
    captures, erasure = captured(store, []), Erasure(store)
    for which in (Which(id=prediction(1)), Which(key="a"), Which(until=START - 50)):
        assert erasure.erase("line", which, START).erased == 0
    rows = [row(1), row(2, key="a"), row(3, at=START - 100), row(4)]
    assert captures.insert(rows, START + 1) == 1
    assert ids(captures) == [prediction(4)]


def test_feedback_on_an_erased_sample_loses_its_truth_and_takes_no_more(store: Store) -> None:
    registered(store, 1)
    captured(store, [row(1)])
    feed = Feedback(store)
    feed.add("line", [entry(1, 3)], START)
    Erasure(store).erase("line", Which(id=prediction(1)), START)
    ((refused,), told) = feed.add("line", [entry(1, 4)], START), feed.history([prediction(1)])
    assert isinstance(refused, Invalid)
    assert "was erased" in str(refused)
    assert [(one["truth"], one["by"]) for one in told[prediction(1), 0]] == [(None, "")]
    with store.read() as connection:
        assert truths(connection, "line", [prediction(1)]) == {}


def file_bytes(store: Store) -> bytes:
    """All that is in the files of the database."""
    return b"".join(path.read_bytes() for path in sorted(store.folder.glob("*.db*")))


def mark(number: int) -> bytes:
    return b"SECRET%06d!" % number


def churned(store: Store, seed: int) -> tuple[int, set[int]]:
    """Add captures of many sizes, and erase or prune most of them, in turns. Returns how many there were, and the kept.

    SQLite moves rows between its pages then, and leaves old copies of them.
    """
    rng = np.random.default_rng(seed)
    captures, erasure, alive, count = captured(store, []), Erasure(store), set[int](), 0
    for _ in range(35):
        rows = []
        for number in range(count, count + int(rng.integers(0, 40))):
            own: dict[str, Any] = {
                "content": mark(number) * int(rng.choice([2, 60, 60, 150, 400, 1500])),
                "key": mark(number).decode(),
            }
            rows.append(row(number, said={"": {"label": own["key"]}}, **own))
        count += len(rows)
        captures.insert(rows, START)
        alive |= set(range(count - len(rows), count))
        gone = rng.choice(sorted(alive), int(rng.integers(0, min(36, len(alive)))), replace=False).tolist()
        alive -= set(gone)
        with store.write() as connection:
            numbers = select(rows_table.c.number).where(rows_table.c.id.in_(map(prediction, gone[3:])))
            remove(connection, "line", connection.scalars(numbers).all(), START)
        for number in gone[:3]:
            erasure.erase("line", Which(id=prediction(number)), START)
    return count, alive


@pytest.mark.slow
def test_erased_bytes_are_nowhere_in_the_database_file(tmp_path: Path) -> None:
    store = Store(migrated(tmp_path))
    count, kept = churned(store, SEED)
    erasure = Erasure(store)
    assert erasure.scrub(START + 100)
    after = file_bytes(store)
    assert not any(mark(number) in after for number in set(range(count)) - kept)
    assert all(mark(number) in after for number in kept)
    assert erasure.scrub(START + 200)  # nothing is left to be done
    gone = mark(next(iter(kept)))
    assert erasure.erase("line", Which(key=gone.decode()), START).erased == 1
    assert erasure.scrub(START + 200)
    assert gone not in file_bytes(store)
    assert erasure.scrub(START + 2 * DAY)
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(capture_erasures)) == 0
    store.close()


def test_a_process_that_ends_before_the_log_is_empty_leaves_the_rest_to_another_one(tmp_path: Path) -> None:
    """A log that is not emptied keeps what it had, also once it is begun again."""
    store = Store(migrated(tmp_path))
    captured(store, [row(1, content=mark(1) * 100)])
    Erasure(store).erase("line", Which(id=prediction(1)), START)
    with store.read() as reader, sqlite3.connect(store.folder / "torchloop.db") as other:
        reader.execute(select(rows_table)).first()
        other.execute("BEGIN").execute("SELECT * FROM captures").fetchone()
        assert not Erasure(store).scrub(START)
    assert Erasure(store).scrub(START + 10)  # the first one may still do it
    other.close()
    assert mark(1) in file_bytes(store)
    assert Erasure(store).scrub(START + 61)
    assert mark(1) not in file_bytes(store)
    store.close()


def test_a_log_that_others_read_is_emptied_later(tmp_path: Path) -> None:
    answers, rewritten = [False, True], []

    class Read(Store):
        def rewrite(self) -> None:
            rewritten.append(True)

        def empty_log(self) -> bool:
            return answers.pop(0)

    store = Read(migrated(tmp_path))
    captured(store, [row(1)])
    erasure = Erasure(store)
    erasure.erase("line", Which(id=prediction(1)), START)
    assert [erasure.scrub(START + second) for second in (1, 2, 3)] == [False, True, True]
    assert (rewritten, answers) == ([True], [])
    store.close()
