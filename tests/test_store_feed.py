"""Kinds of the feed: those that the documentation lists, and changes that are one entry each. On both databases."""

import asyncio
import logging
import re
from dataclasses import replace
from typing import Any, get_args

import pytest

from models.checkpoints.storage import Storage
from models.messages import Ingested
from service.data.capture_settings import CaptureSettings
from service.data.captures import Captures
from service.data.datasets import Datasets
from service.delivery.trial_rows import State as TrialState
from service.errors import NotFound, StoreUnavailable
from service.jobs.feed_retention import FeedRetention
from service.jobs.retrain_rows import Kept, RetrainRows, RetrainSettings
from service.jobs.rows import State as JobState
from service.store.database import Store
from service.store.feed import Changes, append, append_all
from service.store.feed_kinds import KINDS
from service.store.outbox import Outbox
from tests.dataset_service import SUMMARY
from tests.fakes import ROOT
from tests.sources import FILES
from tests.upkeep import Filled, pruned

ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
MODEL = "line"
DAY_S = 86_400.0


def told(store: Store, group: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a group of kinds, without its name."""
    found = Changes(store).new_events(0, 999)
    named = [(entry.kind.partition("."), entry) for entry in found]
    return [(name, dict(entry.data)) for (first, _, name), entry in named if first == group]


def test_the_documentation_lists_the_kinds_and_the_fields_of_their_data() -> None:
    rows = ROW.findall((ROOT / "docs" / "operating.md").read_text())
    documented = {kind: (text, tuple(re.findall(r"`([a-z0-9_]+)`", names))) for kind, text, names in rows}
    assert documented == {kind: (one.text, one.fields) for kind, one in KINDS.items()}
    assert len(rows) == len(documented)


def test_every_kind_is_one_that_the_code_adds_entries_of() -> None:
    """The states of jobs and trials, and literals of the source."""
    source = "".join(path.read_text() for path in FILES if path.name != "feed_kinds.py")
    states = {f"job.{state}" for state in get_args(JobState)} | {f"trial.{state}" for state in get_args(TrialState)}
    assert {kind for kind in KINDS if kind.startswith(("job.", "trial."))} == states | {"trial.fault"}
    assert [kind for kind in KINDS.keys() - states - {"trial.fault"} if f'"{kind}"' not in source] == []
    assert KINDS.keys() >= set(re.findall(r'append\(connection, "([a-z_.]+)"', source))


@pytest.mark.parametrize(
    ("kind", "data"),
    [("job.odd", {}), ("odd", {}), ("job.running", {"job": "1", "odd": 2}), ("version.pruned", {"by": 1})],
)
def test_an_entry_that_is_not_documented_is_refused(store: Store, kind: str, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="add them there"), store.write() as connection:
        append(connection, kind, MODEL, 1.0, data)
    assert Changes(store).last_event() == 0


def dataset(store: Store) -> Datasets:
    datasets = Datasets(store)
    folder = Storage(store.folder).dataset(MODEL, "a")
    folder.mkdir(parents=True)
    made = Ingested(sha256="a", folder=folder.relative_to(store.folder).as_posix(), summary=SUMMARY)
    with store.write() as connection:
        datasets.add(connection, MODEL, "field", made, source="s", parent=None, job="j", now=1.0)
    return datasets


def test_deleting_and_erasing_a_dataset_are_an_entry_each(store: Store) -> None:
    datasets = dataset(store)
    datasets.delete(MODEL, "field", 1, erase=False, now=2.0)
    with pytest.raises(NotFound):
        datasets.delete(MODEL, "field", 1, erase=False, now=3.0)
    for now in (4.0, 5.0):  # a repeat changes nothing
        datasets.delete(MODEL, "field", 1, erase=True, now=now)
    label = {"dataset": "field@1", "sha256": "a"}
    assert told(store, "dataset") == [("created", {**label, "job": "j"}), ("deleted", label), ("erased", label)]


def test_erasing_a_dataset_at_once_is_one_entry(store: Store) -> None:
    dataset(store).delete(MODEL, "field", 1, erase=True, now=2.0)
    assert [name for name, _ in told(store, "dataset")] == ["created", "erased"]


def test_a_pruned_version_is_an_entry(store: Store) -> None:
    filled = Filled(store)
    for content in (b"1", b"2", b"3"):
        filled.add(content)
    for _ in range(2):
        pruned(filled, keep=1)
    assert [data for name, data in told(store, "version") if name == "pruned"] == [{"version": 1}, {"version": 2}]


def test_other_settings_of_capture_are_an_entry_and_the_same_ones_are_none(store: Store) -> None:
    captures, on = Captures(store), CaptureSettings(rate=0.5)
    for settings in (CaptureSettings(), on, on, replace(on, days=2.0), CaptureSettings()):
        captures.set(MODEL, settings, by="admin", now=1.0)
    found = [(data["by"], data["rate"], data["days"]) for _, data in told(store, "capture")]
    assert found == [("admin", 0.5, 30.0), ("admin", 0.5, 2.0), ("admin", 0.0, 30.0)]


def retrain(rows: RetrainRows, settings: RetrainSettings, now: float) -> Kept:
    rows.set(MODEL, settings, by="admin", submitter="s", now=now)
    (kept,) = rows.all()
    return kept


def test_other_settings_of_retraining_are_an_entry_and_the_same_ones_are_none(store: Store) -> None:
    rows, ten = RetrainRows(store), RetrainSettings(corrections=10, config={"epochs": 1})
    for now, settings in enumerate((RetrainSettings(), ten, ten, replace(ten, config={"epochs": 2}))):
        retrain(rows, settings, now)
    found = [(data["by"], data["corrections"], data["config"]) for _, data in told(store, "retrain")]
    assert found == [("admin", 10, {"epochs": 1}), ("admin", 10, {"epochs": 2})]


def test_a_fault_of_retraining_is_an_entry_once_until_there_is_another(store: Store) -> None:
    rows = RetrainRows(store)
    kept = retrain(rows, RetrainSettings(corrections=1), 1.0)

    def fence(_: object) -> None:
        """Leads."""

    for fault in ("no dataset", "no dataset", "too many jobs", "no dataset"):
        rows.note_fault(kept, "1 new corrections", fault, 2.0, fence)
    reasons = ["no dataset", "too many jobs", "no dataset"]
    failed = [data for name, data in told(store, "retrain") if name == "failed"]
    assert failed == [{"due": "1 new corrections", "reason": reason} for reason in reasons]


def test_a_fault_of_settings_that_were_replaced_or_of_a_process_that_leads_no_more_is_none(store: Store) -> None:
    rows = RetrainRows(store)
    kept = retrain(rows, RetrainSettings(corrections=1), 1.0)

    def lost(_: object) -> None:
        raise StoreUnavailable("another process leads")

    with pytest.raises(StoreUnavailable):
        rows.note_fault(kept, "1 new corrections", "late", 2.0, lost)
    retrain(rows, RetrainSettings(corrections=2), 3.0)
    rows.note_fault(kept, "1 new corrections", "late", 4.0, lambda _: None)
    assert [name for name, _ in told(store, "retrain")] == ["changed", "changed"]
    assert rows.all()[0].fault is None


def test_old_entries_are_removed_but_for_the_last_one_and_those_that_a_webhook_waits_for(store: Store) -> None:
    changes, outbox = Changes(store), Outbox(store)

    def add(at: float) -> None:
        with store.write() as connection:
            append(connection, "version.pruned", MODEL, at, {"version": 1})

    def left() -> list[int]:
        return [entry.id for entry in changes.new_events(0, 99)]

    add(1.0)
    add(2.0)
    add(3.0)
    add(4.0)
    add(10.0)
    outbox.configure(["hook"], 0.0)
    add(5.0)  # by a clock that is behind
    add(5.0)
    assert (changes.prune(10.0, 2), left()) == (2, [3, 4, 5, 6, 7])
    assert (changes.prune(10.0, 2), left()) == (2, [5, 6, 7])
    (first, _) = outbox.due("hook", 99.0, 9)
    assert (changes.prune(10.0, 2), left()) == (0, [5, 6, 7])
    outbox.confirm(first)
    assert (changes.prune(99.0, 9), left()) == (2, [7])
    outbox.stop("hook", "410", 0.0)
    assert (changes.prune(99.0, 9), changes.last_event()) == (0, 7)
    add(100.0)
    assert (changes.prune(99.0, 9), left()) == (1, [8])


def test_the_service_removes_old_entries_while_it_runs(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with store.write() as connection:
        append_all(connection, "version.pruned", 1.0, [(MODEL, {"version": one}) for one in range(450)])
        append(connection, "version.pruned", MODEL, DAY_S, {"version": 451})
    looked: asyncio.Queue[None] = asyncio.Queue()

    async def pause() -> None:
        looked.put_nowait(None)
        await asyncio.Event().wait()

    async def run() -> None:
        async with FeedRetention(Changes(store), 1, now=lambda: DAY_S + 2, pause=pause):
            await looked.get()

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(run(), 60))
    assert [entry.id for entry in Changes(store).new_events(0, 9)] == [451]
    assert [record.__dict__["entries"] for record in caplog.records if "removed from the feed" in record.message] == [
        450
    ]


def test_a_database_that_is_away_or_a_fault_ends_no_retention(caplog: pytest.LogCaptureFixture) -> None:
    faults = [StoreUnavailable("away"), ZeroDivisionError()]

    class Failing(Changes):
        def __init__(self) -> None:
            pass

        def prune(self, before: float, most: int) -> int:  # noqa: ARG002 - as Changes
            if faults:
                raise faults.pop(0)
            return 0

    async def run() -> None:
        looks: asyncio.Queue[None] = asyncio.Queue()
        pauses = 0

        async def pause() -> None:
            nonlocal pauses
            pauses += 1
            looks.put_nowait(None)
            await asyncio.sleep(0)
            if pauses == 3:
                await asyncio.Event().wait()

        async with FeedRetention(Failing(), 1, pause=pause):
            for _ in range(3):
                await looks.get()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert "changes not removed" in caplog.text
