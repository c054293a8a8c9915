"""torchloop prune and fsck: files of datasets. On both databases."""

import os
from pathlib import Path

import pytest
from sqlalchemy import update

from models.catalog import specs
from models.checkpoints.code import cache_key
from models.dataset_manifest import FILE
from service.data.datasets import Datasets, DatasetVersion
from service.data.uploads import Uploads
from service.errors import NotFound
from service.store.database import Store
from service.store.tables import datasets, jobs
from service.upkeep.faults import Checker
from tests.upkeep import DAY_S, MODEL, NOW, Filled, aged, pruned, reasons

RESTORE = "restore it from a backup"


@pytest.fixture
def filled(store: Store) -> Filled:
    return Filled(store)


def folder(filled: Filled, version: DatasetVersion) -> Path:
    return filled.store.folder / version.folder


def faults(filled: Filled) -> dict[str, str]:
    found = Checker(filled.store, NOW).check().faults
    assert len({fault.where for fault in found}) == len(found)
    return {fault.where: f"{fault.kind}: {fault.detail}" for fault in found}


def relative(filled: Filled, path: Path) -> str:
    return path.relative_to(filled.store.folder).as_posix()


def test_files_of_versions_stay_also_of_deleted_ones(filled: Filled) -> None:
    first = filled.dataset(20)
    second = filled.dataset(30, parent=first)
    filled.dataset(40, "other")
    Datasets(filled.store).delete(MODEL, "other", 1, erase=False, now=NOW)
    before = sorted(filled.storage.datasets(MODEL).rglob("*"))
    done = pruned(filled, days=0, orphans=True)
    assert (done.files, done.left) == ([], [])
    assert sorted(filled.storage.datasets(MODEL).rglob("*")) == before
    found = Checker(filled.store, NOW).check()
    assert (found.faults, found.datasets) == ([], 3)
    assert second.summary["added"] == 10


def test_originals_of_no_version_go_and_those_of_waiting_jobs_stay(filled: Filled) -> None:
    version = filled.dataset(20)
    paths = {name: filled.storage.original(MODEL, name * 64) for name in "0123"}
    for path in paths.values():
        aged(path)
    aged(paths["3"], 100)
    filled.ingest(paths["0"].name, state="succeeded")  # its rows were those of another file
    waiting = filled.ingest(paths["1"].name, state="queued")
    found = reasons(pruned(filled))
    assert found == {
        relative(filled, paths["0"]): "original of no dataset version: its job has ended",
        relative(filled, paths["2"]): "of no job and dataset version: --orphans removes it",
        relative(filled, paths["3"]): "of no job and dataset version, but less than a day old",
    }
    assert faults(filled) == {
        relative(filled, paths[name]): "orphan: no dataset version or job has it: torchloop prune removes it with "
        "--orphans, after a day"
        for name in "23"
    }
    filled.jobs.cancel(waiting.id, now=NOW)
    pruned(filled, orphans=True)
    assert {path.name for path in filled.storage.originals(MODEL)} == {version.source, paths["3"].name}


def test_folders_without_a_row_go_only_when_asked_a_day_old_and_no_ingest_at_work(filled: Filled) -> None:
    known = filled.dataset(20)
    lost, young = (filled.storage.dataset(MODEL, name * 64) for name in "01")
    for path in (lost, young):
        aged(path / FILE)
        aged(path)
    os.utime(young, (NOW, NOW))
    job = filled.ingest(known.source, state="running")
    busy = "a job of its model is queued or running: a later prune removes it"
    assert reasons(pruned(filled, orphans=True)) == {relative(filled, path): busy for path in (lost, young)}
    assert faults(filled) == {}
    with filled.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(state="failed"))
    assert reasons(pruned(filled)) == {
        relative(filled, lost): "of no dataset version: --orphans removes it",
        relative(filled, young): "of no dataset version, but less than a day old",
    }
    assert "no dataset version has it" in faults(filled)[relative(filled, lost)]
    assert [file.path for file in pruned(filled, orphans=True).files] == [relative(filled, lost)]
    assert folder(filled, known).is_dir()


def test_files_of_erased_versions_that_were_left_go(filled: Filled) -> None:
    version = filled.dataset(20)
    with filled.store.write() as connection:
        connection.execute(update(datasets).values(erased=True, deleted_at=NOW))
    assert faults(filled).keys() == {version.folder, f"datasets/{MODEL}/originals/{version.source}"}
    assert reasons(pruned(filled)) == {
        version.folder: "of an erased dataset version",
        f"datasets/{MODEL}/originals/{version.source}": "original of no dataset version: its job has ended",
    }
    assert faults(filled) == {}


def test_files_of_another_database_stay(filled: Filled) -> None:
    version = filled.dataset(20)
    with filled.store.write() as connection:
        connection.execute(datasets.delete())
        connection.execute(jobs.delete())
    done = pruned(filled, orphans=True)
    assert {file.why for file in done.left} == {"the database has no dataset of this model"}
    assert [file.why for file in done.files] == ["of no job"]
    assert folder(filled, version).is_dir()


def cache(filled: Filled, version: DatasetVersion, key: str, age_s: float = 10 * DAY_S) -> Path:
    path = folder(filled, version) / "cache" / key
    aged(path / "samples.npy")
    return aged(path, age_s)


def test_samples_that_other_code_has_decoded_go_unless_they_may_be_needed(filled: Filled) -> None:
    version = filled.dataset(20)
    old, young = cache(filled, version, "0"), cache(filled, version, "1", 100)
    job = filled.jobs.enqueue(MODEL, {}, "never", dataset="field", now=NOW)
    busy = "a job of its model is queued or running: a later prune removes it"
    assert reasons(pruned(filled)) == {relative(filled, old): busy}
    filled.jobs.cancel(job.id, now=NOW)
    parent = filled.ingest(version.source, state="queued", parent_sha256=version.sha256)
    assert reasons(pruned(filled)) == {relative(filled, old): busy}
    filled.jobs.cancel(parent.id, now=NOW)
    original = filled.storage.original(MODEL, version.source)
    away = original.rename(filled.store.folder / "away")
    assert reasons(pruned(filled)) == {relative(filled, old): "samples of field@1, whose originals are not all kept"}
    away.rename(original)
    assert reasons(pruned(filled)) == {relative(filled, old): "samples of field@1, decoded by other code"}
    kept = {path.name for path in filled.storage.caches(MODEL, version.sha256)}
    assert kept == {young.name, cache_key(MODEL, specs()[MODEL])}


def test_reports_and_drafts_of_jobs_go_with_them(filled: Filled) -> None:
    gone, running = (filled.ingest("0" * 64, state=state) for state in ("failed", "running"))
    for job_id in (gone.id, running.id, "unknown"):
        aged(filled.storage.report(MODEL, job_id))
        aged(filled.storage.dataset_draft(MODEL, job_id) / "cache" / "k" / "samples.npy")
    refused = f"datasets/{MODEL}/reports/{{}}.jsonl".format
    draft = f"datasets/{MODEL}/.draft-{{}}/cache/k/samples.npy".format
    unknown = {
        refused("unknown"): "of no job: --orphans removes it",
        draft("unknown"): "of no job: --orphans removes it",
    }
    assert reasons(pruned(filled)) == {draft(gone.id): "draft of a finished job", **unknown}
    assert faults(filled).keys() == unknown.keys()
    filled.job()
    assert pruned(filled, days=41).jobs == []
    done = pruned(filled, days=30, orphans=True)
    assert done.jobs == [gone.id]
    assert reasons(done)[refused(gone.id)] == "of a removed job"
    assert filled.storage.job_ids() == [running.id]
    assert len(filled.storage.job_files(running.id)) == 2


def test_abandoned_uploads_go_with_their_rows(filled: Filled) -> None:
    uploads = Uploads(filled.store, 100)
    old, young = (
        uploads.begin(MODEL, "field", 10, sha256=None, form="auto", options={}, now=NOW - age) for age in (2 * DAY_S, 9)
    )
    aged(filled.storage.incoming(old.id), 2 * DAY_S), aged(filled.storage.incoming(young.id), 9)
    assert reasons(pruned(filled)) == {f"uploads/{old.id}": "temporary file"}
    with pytest.raises(NotFound):
        uploads.get(old.id)
    assert uploads.received(uploads.get(young.id)) == 0


def test_leftovers_of_killed_processes_go_after_a_day(filled: Filled) -> None:
    version = filled.dataset(20)
    top = filled.storage.datasets(MODEL)
    key = cache_key(MODEL, specs()[MODEL])
    inner = folder(filled, version) / "cache" / key / ".draft-1"
    for path in (top / ".erased-1" / FILE, top / ".erased-2" / FILE, top / "originals" / ".half-1", inner / "x"):
        aged(path)
    for path, age_s in ((top / ".erased-1", 2 * DAY_S), (top / ".erased-2", 100), (inner, 2 * DAY_S)):
        aged(path, age_s)
    found = reasons(pruned(filled))
    assert found.keys() == {
        relative(filled, path) for path in (top / ".erased-1", top / "originals" / ".half-1", inner)
    }
    assert set(found.values()) == {"temporary file"}


def test_missing_and_damaged_files_of_versions_are_named(filled: Filled) -> None:
    first = filled.dataset(20)
    second = filled.dataset(30, parent=first)
    same = filled.dataset(20, "same")
    assert same.folder == first.folder
    original = filled.storage.original(MODEL, first.source)
    original.unlink()
    (folder(filled, second) / "numbers.npy").write_bytes(b"damaged")
    (folder(filled, second) / "splits.npy").unlink()
    report = filled.storage.report(MODEL, first.job)
    report.unlink()
    damaged = filled.dataset(40, "other")
    manifest = folder(filled, damaged) / FILE
    manifest.write_text(manifest.read_text().replace('"inherited": 0', '"inherited": 1'))
    lost = "No such file or directory, and"
    rows = "field@1, same@1, field@2 of regressor"
    assert faults(filled) == {
        relative(filled, original): f"missing: {lost} {rows} cannot be decoded again: {RESTORE}",
        f"{second.folder}/numbers.npy": f"damaged: its digest is not that of field@2 of {MODEL}: {RESTORE}",
        f"{second.folder}/splits.npy": f"missing: {lost} field@2 of {MODEL} cannot be opened: {RESTORE}",
        relative(filled, report): f"missing: {lost} field@1 of {MODEL} cannot be reported on: {RESTORE}",
        f"{damaged.folder}/{FILE}": f"damaged: its digest is not that of other@1 of {MODEL}: {RESTORE}",
    }
    manifest.write_text("{}")
    assert faults(filled)[f"{damaged.folder}/{FILE}"].startswith("damaged: its digest")
    aged(filled.storage.original(MODEL, "0" * 64))
    assert "cannot be read" in reasons(pruned(filled, orphans=True))[f"datasets/{MODEL}/originals/{'0' * 64}"]


def test_an_erased_version_takes_no_original_that_an_equal_one_needs(filled: Filled) -> None:
    first = filled.dataset(20)
    source = filled.storage.original(MODEL, first.source)
    job = filled.ingest("1" * 64, state="succeeded")
    aged(filled.storage.report(MODEL, job.id))
    with filled.store.write() as connection:  # an equal version that was made of another file
        row = {field: getattr(first, field) for field in ("model", "version", "created_at", "sha256", "folder")}
        row |= {"name": "same", "job": job.id, "source": "1" * 64, "parent": None, "summary": dict(first.summary)}
        connection.execute(datasets.insert().values(**row))
    erase = Datasets(filled.store).delete
    erase(MODEL, "field", 1, erase=True, now=NOW)
    assert source.exists()
    assert faults(filled) == {}
    erase(MODEL, "same", 1, erase=True, now=NOW)
    assert not source.exists()
    assert filled.storage.dataset_versions(MODEL) == []
