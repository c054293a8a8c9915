"""The table of captures: batches, lists, examples and retention."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from models.packed_rows import packed_row
from service.data import captures as table
from service.data.capture_retention import CaptureRetention
from service.data.capture_rows import entry_of
from service.data.captures import Captures, Order, examples
from service.data.erasure import Erasure, Which
from service.data.feedback import Feedback, Kind
from service.errors import Invalid, NotFound
from service.store.database import Store
from service.store.tables import capture_uses, feedback
from tests.captured import ALL, START, captured, entry, held, ids, of_job, prediction, registered, row

DAY = 86_400.0
SEED = 7  # with SQLite 3.40, secure_delete alone leaves bytes of two erased samples


def test_settings_are_replaced_and_count_what_is_held(store: Store) -> None:
    captures = Captures(store)
    assert captures.settings_of("line").settings.rate == 0
    captures.set("line", replace(ALL, days=2), by="admin", now=START)
    size = captures.insert([row(1), row(2)], START)
    kept = captures.set("line", replace(ALL, originals=True), by="admin", now=START)
    assert (kept.settings.days, kept.settings.originals, kept.examples, size) == (30, True, 2, 2)
    assert kept.bytes == row(1)["bytes"] + row(2)["bytes"]
    assert captures.settings() == {"line": kept}


def test_a_repeated_batch_adds_nothing(store: Store) -> None:
    captures = captured(store, [row(1), row(1, position=1)])
    assert captures.insert([row(1), row(1, position=1), row(2)], START) == 1
    assert held(store)[0] == 3


def test_a_sample_comes_back_to_the_bit(store: Store) -> None:
    entry = np.array([[0.1, np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    captures = captured(store, [row(1, content=packed_row({"": entry}))])
    (found,) = captures.of_prediction(prediction(1))
    assert found.content is not None
    assert entry_of(found.content).tobytes() == entry.tobytes()
    assert captures.one("line", prediction(1), 0).number == found.number
    with pytest.raises(NotFound):
        captures.one("other", prediction(1), 0)


def test_pages_of_each_order_have_each_sample_once(store: Store) -> None:
    rows = [row(number, probability=None if number == 3 else 0.5 + number / 40) for number in range(9)]
    captures = captured(store, rows)
    orders: Sequence[Order] = ("newest", "random", "uncertain")
    for order in orders:
        found, after = [], None
        for _ in range(5):
            page, after = captures.page("line", unlabelled=False, order=order, version=None, limit=2, after=after)
            found += [one.id for one in page]
        assert after is None
        assert len(set(found)) == 9
        assert found == ids(captures, order)
    assert ids(captures)[0] == prediction(8)
    assert ids(captures, "uncertain") == [*(prediction(n) for n in (0, 1, 2, 4, 5, 6, 7, 8)), prediction(3)]
    with pytest.raises(Invalid, match="with the same order"):
        captures.page("line", unlabelled=False, order="random", version=None, limit=2, after="-3")


def test_a_list_is_of_one_version_and_of_what_lacks_an_audit(store: Store) -> None:
    registered(store, 1)
    captures = captured(store, [row(1), row(2), row(3), row(4, version=2)])
    told = [entry(1, kind="audit"), entry(2, kind="correction"), entry(3, kind="outcome")]
    assert Feedback(store).add("line", told, START) == ["captured"] * 3
    assert ids(captures, version=2) == [prediction(4, version=2)]
    assert ids(captures, unlabelled=True) == [prediction(4, version=2), prediction(2)]


def test_a_random_list_has_also_what_was_audited_as_uncertain(store: Store) -> None:
    registered(store, 1)
    captures = captured(store, [row(1), row(2), row(3)])
    told = [entry(1, kind="audit", drawn="uncertain"), entry(2, kind="audit")]
    assert Feedback(store).add("line", told, START) == ["captured"] * 2
    assert set(ids(captures, "random", unlabelled=True)) == {prediction(1), prediction(3)}
    assert ids(captures, "uncertain", unlabelled=True) == [prediction(3)]
    Feedback(store).add("line", [entry(1, kind="audit")], START)
    assert ids(captures, "random", unlabelled=True) == [prediction(3)]


def test_examples_are_the_labelled_samples_with_their_best_truth(store: Store) -> None:
    registered(store, 1)
    captured(store, [row(number, key=f"k{number}") for number in range(1, 6)])
    feed = Feedback(store)
    feed.add("line", [entry(1, 3), entry(2, 4), entry(3, 5, "audit")], START)
    feed.add("line", [entry(1, 8), entry(2, 9, "audit"), entry(4, 7, "outcome")], START + 10)
    kinds: list[Kind] = ["correction", "audit", "outcome"]
    with store.read() as connection:
        found = {one.id: one for one in examples(connection, "line", kinds=kinds)}
        corrected = [one.id for one in examples(connection, "line")]
        recent = [one.id for one in examples(connection, "line", since=START + 5)]
        mark = max(one.feedback for one in found.values())
        assert list(examples(connection, "line", after=mark, kinds=kinds)) == []
    assert {one.id: one.truth for one in found.values()} == {
        prediction(1): (8, "correction"),
        prediction(2): (9, "audit"),
        prediction(3): (5, "audit"),
        prediction(4): (7, "outcome"),
    }
    assert corrected == [prediction(2), prediction(1)]  # in the order of their feedback
    assert recent == [prediction(1)]
    one = found[prediction(4)]
    assert (one.entry.tolist(), one.was_right, one.key, one.rate) == ([4.0], True, "k4", 1.0)


def test_old_captures_go_whether_labelled_or_not(store: Store) -> None:
    registered(store, 1)
    captures = captured(store, [row(1, at=START - 3 * DAY), row(2, at=START - 3 * DAY), row(3)], replace(ALL, days=2))
    Feedback(store).add("line", [entry(1, 3, id=prediction(1, START - 3 * DAY))], START)
    retention = CaptureRetention(store)
    assert retention.step(START) == 2
    assert retention.step(START) == 0
    assert ids(captures) == [prediction(3)]
    assert held(store) == (1, row(3)["bytes"])
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(feedback)) == 0


@pytest.mark.parametrize("limit", [{"max_examples": 2}, {"max_bytes": 2 * row(1)["bytes"]}])
def test_above_count_or_bytes_the_oldest_go_unlabelled_ones_first(store: Store, limit: dict[str, Any]) -> None:
    registered(store, 1)
    captures = captured(store, [row(number) for number in (1, 2, 3, 4)], replace(ALL, **limit))
    Feedback(store).add("line", [entry(1, 3, "audit"), entry(2, 3)], START)
    assert CaptureRetention(store).step(START) == 2
    assert ids(captures) == [prediction(2), prediction(1)]
    captures.insert([row(5)], START)
    assert CaptureRetention(store).step(START) == 1
    assert ids(captures) == [prediction(2), prediction(1)]  # the new one went: it is not labelled


def test_retention_takes_small_steps(store: Store) -> None:
    captured(store, [row(number) for number in range(450)], replace(ALL, max_examples=10))
    retention = CaptureRetention(store)
    assert [retention.step(START) for _ in range(4)] == [200, 200, 40, 0]


def test_labelled_samples_stay_while_there_are_others_however_many_come_at_once(store: Store) -> None:
    registered(store, 1)
    captures = captured(store, [row(1), row(2)], replace(ALL, max_examples=10))
    Feedback(store).add("line", [entry(1, 3), entry(2, 3, "audit")], START)
    captures.insert([row(number) for number in range(3, 450)], START)
    while CaptureRetention(store).step(START):
        pass
    assert ids(captures)[-2:] == [prediction(2), prediction(1)]
    assert held(store)[0] == 10


def test_a_pruned_sample_of_a_dataset_leaves_a_tombstone_that_an_erasure_finds(store: Store) -> None:
    captures = captured(store, [row(1, key="a")], replace(ALL, days=1))
    of_job(store, "j1", "field@2")
    with store.write() as connection:
        table.use(connection, "j1", [captures.of_prediction(prediction(1))[0].number])
    assert CaptureRetention(store).step(START + 2 * DAY) == 1
    (left,) = captures.of_prediction(prediction(1))
    assert (left.content, left.pruned_at, left.erased_at) == (None, START + 2 * DAY, None)
    assert CaptureRetention(store).step(START + 2 * DAY) == 0
    done = Erasure(store).erase("line", Which(key="a"), START + 3 * DAY)
    assert (done.erased, done.in_datasets) == (1, ["field@2"])
    assert held(store) == (0, 0)
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(capture_uses)) == 1


def test_feedback_that_found_no_capture_goes_after_thirty_days(store: Store) -> None:
    registered(store, 1)
    captured(store, [row(1)])
    feed = Feedback(store)
    feed.add("line", [entry(1), entry(2), entry(0, id=None, key="never sent")], START)
    CaptureRetention(store).step(START + 29 * DAY)
    assert set(feed.history([prediction(1), prediction(2)])) == {(prediction(1), 0), (prediction(2), 0)}
    captured(store, [], replace(ALL, days=100))
    CaptureRetention(store).step(START + 31 * DAY)
    assert set(feed.history([prediction(1), prediction(2)])) == {(prediction(1), 0)}


def test_an_error_of_the_database_does_not_name_contents(store: Store) -> None:
    rows = [row(1, key="jane@example.org", said={"": {"label": "her diagnosis"}})]
    captures = captured(store, rows)
    with pytest.raises(IntegrityError) as failed:
        captures.insert(rows, START, repeat=False)
    assert "jane" not in str(failed.value)
    assert "diagnosis" not in str(failed.value)
