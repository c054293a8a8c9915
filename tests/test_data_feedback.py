"""Feedback: matched with captures, before or after these are written; replaced entries stay as history."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from service.data.captures import Captures
from service.data.feedback import AlreadyTold, Entry, Feedback, Matched, truths
from service.errors import Invalid
from service.store.database import Store
from service.store.tables import captures
from service.store.tables import feedback as table
from tests.captured import ALL, START, captured, prediction, registered, row


def entry(number: int, truth: object = 7, **fields: object) -> Entry:
    known: dict[str, object] = {"id": prediction(number), "key": None, "position": 0, "truth": truth}
    return Entry(**{**known, "kind": "correction", "drawn": "random", "by": "me", **fields})  # type: ignore[arg-type]


def keyed(key: str, truth: object = 7, **fields: object) -> Entry:
    return entry(0, truth, id=None, key=key, **fields)


def one(feedback: Feedback, told: Entry, now: float = START) -> Matched | Invalid | AlreadyTold:
    (found,) = feedback.add("line", [told], now)
    return found


def current(store: Store) -> list[tuple[object, ...]]:
    columns = table.c.id, table.c.truth, table.c.was_right, table.c.error
    with store.read() as connection:
        query = select(*columns).where(table.c.replaced_at.is_(None)).order_by(table.c.number)
        return [tuple(row) for row in connection.execute(query)]


@pytest.fixture
def feedback(store: Store) -> Feedback:
    registered(store, 1)
    captured(store, [row(1), row(1, position=1, said={"": {"value": 3.0}}), row(2, key="order 2")])
    return Feedback(store)


def test_an_entry_about_a_captured_sample_is_compared_with_its_answer(store: Store, feedback: Feedback) -> None:
    told = [entry(1, 7), entry(1, 2.5, position=1), keyed("order 2", 3)]
    assert feedback.add("line", told, START) == ["captured"] * 3
    assert current(store) == [
        (prediction(1), 7, True, None),
        (prediction(1), 2.5, None, 0.5),
        (prediction(2), 3, False, None),
    ]


def test_an_entry_about_what_was_not_captured_is_kept_with_its_version(store: Store, feedback: Feedback) -> None:
    Captures(store).set("line", replace(ALL, rate=0.0), by="me", now=START)
    assert one(feedback, entry(5)) == "version only"
    with store.read() as connection:
        assert truths(connection, "line", [prediction(5)]) == {(prediction(5), 0): (7, "correction")}
        assert connection.scalar(select(table.c.version)) == 1


def test_a_truth_may_come_before_its_capture_is_written(store: Store, feedback: Feedback) -> None:
    told = [entry(5, 3), keyed("order 6", 7), keyed("order 6", 1, position=1)]
    assert feedback.add("line", told, START) == ["not yet"] * 3
    Captures(store).insert([row(5), row(6, key="order 6")], START + 1)
    found = current(store)
    assert found[:2] == [(prediction(5), 3, False, None), (prediction(6), 7, True, None)]
    assert found[2][0] is None  # of a sample that the prediction does not have
    with store.read() as connection:
        states = dict(connection.execute(select(captures.c.id, captures.c.state)).all())
    assert (states[prediction(5)], states[prediction(2)]) == ("corrected", "new")
    assert one(feedback, entry(5, 4), START + 2) == "captured"


def test_a_sample_that_a_captured_prediction_does_not_have_is_not_awaited(feedback: Feedback) -> None:
    assert one(feedback, entry(1, position=1)) == "captured"
    assert one(feedback, entry(1, position=2)) == "version only"


def test_what_is_drawn_but_old_is_not_awaited(feedback: Feedback) -> None:
    assert one(feedback, entry(9), START + 599) == "not yet"
    assert one(feedback, entry(8), START + 601) == "version only"


def test_entries_by_key_and_by_id_about_one_sample_replace_each_other_once_they_meet(
    store: Store, feedback: Feedback
) -> None:
    feedback.add("line", [entry(5, 1), keyed("order 5", 2)], START)
    Captures(store).insert([row(5, key="order 5")], START + 1)
    assert current(store) == [(prediction(5), 2, False, None)]
    history = feedback.history([prediction(5)])[prediction(5), 0]
    assert [(told["truth"], told["replaced_at"]) for told in history] == [(1, START + 1), (2, None)]


def test_a_later_entry_replaces_the_one_of_its_kind_and_both_stay(store: Store, feedback: Feedback) -> None:
    one(feedback, entry(1, 3))
    one(feedback, entry(1, 4), START + 5)
    one(feedback, entry(1, 5, kind="audit", by="expert"), START + 6)
    one(feedback, entry(1, 6), START + 7)
    history = feedback.history([prediction(1)])[prediction(1), 0]
    assert [(told["truth"], told["replaced_at"]) for told in history] == [
        (3, START + 5),
        (4, START + 7),
        (5, None),
        (6, None),
    ]
    with store.read() as connection:
        ids = [prediction(1)]
        assert truths(connection, "line", ids) == {(prediction(1), 0): (5, "audit")}
        assert truths(connection, "line", ids, ["correction"]) == {(prediction(1), 0): (6, "correction")}
        assert truths(connection, "other", ids) == {}


def test_a_repeat_adds_nothing(store: Store, feedback: Feedback) -> None:
    told = [entry(1, 3), keyed("later", 4), entry(1, 3), keyed("later", 4)]
    assert feedback.add("line", told, START) == ["captured", "not yet", "captured", "not yet"]
    assert len(current(store)) == 2
    assert len(feedback.history([prediction(1)])[prediction(1), 0]) == 1


def test_of_equal_keys_the_last_prediction_is_meant(store: Store, feedback: Feedback) -> None:
    Captures(store).insert([row(7, key="order 2")], START)
    one(feedback, keyed("order 2", 3))
    assert current(store)[0][0] == prediction(7)


def test_what_cannot_be_an_answer_of_the_model_is_refused_alone(store: Store, feedback: Feedback) -> None:
    Captures(store).insert([row(8, model="other")], START)
    told = [
        entry(0, id=prediction(1, version=9)),
        entry(8),
        entry(0, id=prediction(0, at=START + 3600)),
        entry(1),
    ]
    *refused, good = feedback.add("line", told, START)
    words = ["line has no version 9", "one of another model", "its time is still to come"]
    assert [word in str(err) for word, err in zip(words, refused, strict=True)] == [True] * 3
    assert good == "captured"


@pytest.mark.slow
def test_a_thousand_entries_are_kept_in_several_transactions(store: Store, feedback: Feedback) -> None:
    found = feedback.add("line", [entry(number, 3) for number in range(1, 1001)], START)
    assert (found.count("captured"), found.count("not yet")) == (2, 998)
    assert len(current(store)) == 1000
