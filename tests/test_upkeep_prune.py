"""torchloop prune: what goes, what stays, and what the rows of pruned versions say. On both databases."""

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from models.catalog import specs
from models.checkpoints import artifact_files, onnx_file
from models.checkpoints.onnx_file import Exported
from models.checkpoints.record import Record, record_path
from service.command import main
from service.errors import Conflict, NotFound
from service.jobs.queue import Job
from service.store.database import Store
from service.store.tables import versions
from service.upkeep.faults import Checker
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Pruned, Rules
from tests.upkeep import DAY_S, MODEL, NOW, Filled, aged, environment, pruned, reasons

LARGE = {"table": np.zeros(3 * 2**18)}  # 6 MiB: a file


@pytest.fixture
def filled(store: Store) -> Filled:
    return Filled(store)


def test_the_newest_unpromoted_versions_stay(filled: Filled) -> None:
    for at in range(5):
        filled.add(b"%d" % at)
    filled.promote(1)
    done = pruned(filled, keep=2)
    assert done.versions == [(MODEL, 2), (MODEL, 3)]
    assert filled.numbers() == [1, 4, 5]
    assert len(filled.weights()) == 3
    assert done.bytes == 2
    assert {file.why for file in done.files} == {"of a pruned version"}


def test_without_a_rule_every_version_and_job_stays(filled: Filled) -> None:
    filled.add(b"1")
    filled.add(b"2")
    filled.job(finished_days_ago=90)
    filled.job(finished_days_ago=90)
    assert pruned(filled) == Pruned()


def test_what_rollbacks_could_make_live_stays(filled: Filled) -> None:
    for at in range(4):
        filled.add(b"%d" % at)
    filled.promote(1, 2, 3)
    filled.rollback()
    assert pruned(filled, keep=0).versions == [(MODEL, 3), (MODEL, 4)]
    filled.rollback()
    with filled.store.read() as connection:
        assert filled.registry.live_of(connection, MODEL) == 1
    assert [row.version for row in filled.registry.history(MODEL)] == [1, 2, 3, 2, 1]


def test_a_version_that_a_running_job_may_compare_with_stays_until_the_job_ends(filled: Filled) -> None:
    for at in range(3):
        filled.add(b"%d" % at)
    filled.promote(1, 2)
    filled.rollback()
    job = filled.running()
    assert pruned(filled, keep=0).versions == [(MODEL, 3)]
    filled.jobs.fail(filled.jobs.get(job.id), "t", "d", now=NOW)
    assert pruned(filled, keep=0).versions == [(MODEL, 2)]


def test_numbers_are_not_used_again_and_the_row_says_what_happened(filled: Filled) -> None:
    filled.add(b"1")
    filled.promote(1)
    filled.add(b"2", artifacts={"names": ["a"]})
    pruned(filled, keep=0)
    with pytest.raises(NotFound, match=r"version 2 of regressor was pruned on 2001-09-09: .* GET /models/regressor"):
        filled.registry.version(MODEL, 2)
    assert filled.add(b"3") == 3
    with filled.store.read() as connection:
        row = connection.execute(versions.select().where(versions.c.version == 2)).one()
    assert (row.record["metrics"], row.record["artifacts"]) == ({"mse": 0.5}, {})


def test_a_pruned_version_cannot_be_promoted_by_who_had_loaded_it(filled: Filled) -> None:
    filled.add(b"1")
    pruned(filled, keep=0)
    with pytest.raises(NotFound, match="pruned"):
        filled.promote(1)
    assert filled.registry.history(MODEL) == []


def test_weights_and_artifacts_that_another_version_shares_stay(filled: Filled) -> None:
    filled.add(b"same", artifacts=LARGE)
    filled.add(b"same", artifacts=LARGE)
    filled.add(b"other", artifacts={"table": np.ones(3 * 2**18)})
    filled.promote(2)
    files = set(artifact_files.digests(filled.record(2)))
    done = pruned(filled, keep=0)
    assert done.versions == [(MODEL, 1), (MODEL, 3)]
    assert len(done.files) == 2
    assert filled.weights() == {*files, filled.registry.path(filled.registry.version(MODEL, 2)).name}


def test_the_record_that_a_job_wrote_beside_weights_stays_and_goes_with_them(filled: Filled) -> None:
    filled.add(b"1")
    filled.add(b"2")
    first, second = (record_path(filled.registry.path(filled.registry.version(MODEL, number))) for number in (1, 2))
    aged(first), aged(second)
    assert Checker(filled.store, NOW).check().faults == []
    assert f"checkpoints/regressor/{first.name}" in {file.path for file in pruned(filled, keep=1).files}
    assert (first.name in filled.weights(), second.name in filled.weights()) == (False, True)
    assert pruned(filled, keep=1, orphans=True).files == []


def test_exports_of_pruned_versions_and_of_other_code_go(filled: Filled) -> None:
    spec = specs()[MODEL]
    paths = []
    for at in range(2):
        filled.add(b"%d" % at)
        path = filled.storage.export(filled.record(at + 1), spec)
        onnx_file.write(Exported(b"onnx"), path)
        paths.append(aged(path, 5.0))
    filled.promote(1)
    old, new = (aged(paths[0].with_name(f"{name}.safetensors"), age) for name, age in (("old", 2 * DAY_S), ("new", 9)))
    aged(paths[0])
    found = reasons(pruned(filled, keep=0))
    exports = {Path(path).stem: why for path, why in found.items() if path.startswith("exports/")}
    assert exports == {
        paths[1].stem: "export of a pruned version",
        "old": "export of other code or of a pruned version",
    }
    assert paths[0].exists()
    assert new.exists()
    assert not old.exists()


def test_exports_of_a_model_that_is_not_here_stay(filled: Filled) -> None:
    path = aged(filled.store.folder / "exports" / "theirs" / "k.safetensors")
    assert "there is no model theirs here" in reasons(pruned(filled))["exports/theirs/k.safetensors"]
    assert path.exists()


def upload(filled: Filled) -> Any:
    return filled.storage.upload()


class Training:
    """A job that runs while the context is open."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled

    def __enter__(self) -> Job:
        self._job = self._filled.running()
        return self._job

    def __exit__(self, *_: object) -> None:
        self._filled.jobs.fail(self._filled.jobs.get(self._job.id), "t", "d", now=NOW)


@pytest.mark.parametrize("busy", [upload, Training], ids=["upload", "training"])
def test_files_that_may_be_about_to_be_registered_stay_for_a_day(filled: Filled, busy: Callable[[Filled], Any]) -> None:
    filled.add(b"kept")
    filled.promote(1)
    filled.add(b"young", age_s=100, artifacts=LARGE)
    filled.add(b"old")
    with busy(filled):
        done = pruned(filled, keep=0)
        assert len(done.versions) == 2
        assert [file.bytes for file in done.files] == [3]
        assert [file.why.partition(":")[0] for file in done.left] == [
            "a job of its model is running or a checkpoint is being uploaded"
        ] * 2
    assert sorted(pruned(filled, keep=0).files, key=lambda file: file.bytes) == [
        replace(file, why="of a pruned version") for file in sorted(done.left, key=lambda file: file.bytes)
    ]
    assert len(filled.weights()) == 1


def test_weights_of_no_version_go_only_when_asked_and_a_day_old(filled: Filled) -> None:
    filled.add(b"1")
    folder = filled.storage.checkpoints(MODEL)
    aged(folder / "old.pt"), aged(folder / "young.pt", 100)
    assert pruned(filled, keep=1).files == []
    left = reasons(pruned(filled))
    assert left["checkpoints/regressor/old.pt"] == "of no version: --orphans removes it"
    assert "less than a day old" in left["checkpoints/regressor/young.pt"]
    assert [file.path for file in pruned(filled, orphans=True).files] == ["checkpoints/regressor/old.pt"]
    assert "young.pt" in filled.weights()


def test_weights_of_a_model_that_the_database_does_not_know_stay(filled: Filled) -> None:
    filled.add(b"1")
    path = aged(filled.storage.checkpoints("theirs") / "old.pt")
    found = reasons(pruned(filled, orphans=True))
    assert found == {"checkpoints/theirs/old.pt": "the database has no version of this model"}
    assert path.exists()


def test_a_database_without_versions_is_not_that_of_the_store(filled: Filled) -> None:
    path = aged(filled.storage.checkpoints(MODEL) / "old.pt")
    pruner = Pruner(filled.store, specs(), Rules(0, 0, orphans=True), NOW)
    for run in (pruner.plan, pruner.prune):
        with pytest.raises(Conflict, match="the database has no version: nothing is removed; check TORCHLOOP_STORE"):
            run()
    assert path.exists()


def test_a_record_that_is_not_understood_keeps_all_files_of_its_model(filled: Filled) -> None:
    filled.add(b"1")
    filled.add(b"2")
    forged = {"model": MODEL, "sha256": "0" * 64, "artifacts": {"t": {"sha256 of file": "../x", "form": "npy"}}}
    with filled.store.write() as connection:
        connection.execute(update(versions).where(versions.c.version == 2).values(record=forged))
    done = pruned(filled, keep=1)
    assert done.files == []
    assert all("cannot be understood" in file.why for file in done.left)
    assert len(filled.weights()) == 2
    assert pruned(filled, keep=0).versions == [(MODEL, 2)]
    assert len(pruned(filled, keep=0).files) == 2


def test_temporary_files_and_abandoned_uploads_go(filled: Filled) -> None:
    aged(filled.store.folder / ".upload-abc"), aged(filled.storage.checkpoints(MODEL) / ".x.pt.abc")
    aged(filled.store.folder / "exports" / MODEL / ".young", 100)
    aged(filled.store.folder / ".unpacked-abc" / "member")
    aged(filled.store.folder / ".unpacked-abc")
    found = {file.path: file.bytes for file in pruned(filled).files}
    assert found == {".upload-abc": 7, ".unpacked-abc": 7, "checkpoints/regressor/.x.pt.abc": 7}
    assert not (filled.store.folder / ".unpacked-abc").exists()


def test_more_files_than_one_transaction_removes(filled: Filled) -> None:
    for at in range(45):
        filled.add(b"%d" % at)
    assert len(pruned(filled, keep=1).files) == 44
    assert len(filled.weights()) == 1


def test_a_file_that_cannot_be_removed_is_named_and_the_rest_goes_on(
    filled: Filled,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(filled.store, database_url, KEEP_VERSIONS="1").items():
        monkeypatch.setenv(name, value)
    for at in range(3):
        filled.add(b"%d" % at)
    stuck = filled.registry.path(filled.registry.version(MODEL, 1))
    unlink = Path.unlink

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == stuck.name:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["prune"]) == 1
    said = capsys.readouterr().out
    assert f"failed: checkpoints/regressor/{stuck.name}, 1 byte: cannot be removed (Operation not permitted)" in said
    assert "removed 2 versions, 0 jobs, 1 file: 1 byte" in said
    monkeypatch.undo()
    assert [file.path for file in pruned(filled).files] == [f"checkpoints/regressor/{stuck.name}"]


def test_the_command_lists_then_removes(
    filled: Filled, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(filled.store, database_url, KEEP_VERSIONS="1").items():
        monkeypatch.setenv(name, value)
    for at in range(3):
        filled.add(b"%d" % at, age_s=NOW - time.time())
    filled.promote(1)
    name = filled.registry.path(filled.registry.version(MODEL, 2)).name
    lines = f"X version 2 of regressor\nX checkpoints/regressor/{name}, 1 byte: of a pruned version\n"
    lines += "X 1 version, 0 jobs, 1 file: 1 byte\nnot set: TORCHLOOP_KEEP_JOBS_DAYS\n"
    assert main(["prune", "--dry-run"]) == 0
    assert capsys.readouterr().out == lines.replace("X", "would remove")
    assert main(["prune", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["dry_run"], said["versions"], said["bytes"]) == (True, [{"model": MODEL, "version": 2}], 1)
    assert said["files"][0] == {"path": f"checkpoints/regressor/{name}", "bytes": 1, "why": "of a pruned version"}
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == lines.replace("X", "removed")
    assert filled.numbers() == [1, 3]


@pytest.mark.parametrize("verb", ["prune", "fsck"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "there is no database in the store folder: check TORCHLOOP_STORE and TORCHLOOP_DATABASE_URL"),
        ({"KEEP_VERSIONS": "-1"}, "TORCHLOOP_KEEP_VERSIONS: Input should be greater than or equal to 0"),
        ({"KEEP_JOBS_DAYS": "x"}, "TORCHLOOP_KEEP_JOBS_DAYS: Input should be a valid number"),
    ],
    ids=["no database", "versions", "days"],
)
def test_a_command_that_cannot_begin_says_why_in_a_line_and_makes_no_store(
    verb: str,
    settings: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith("TORCHLOOP_")]:
        monkeypatch.delenv(name)
    for name, value in {"STORE": str(tmp_path / "store"), **settings}.items():
        monkeypatch.setenv(f"TORCHLOOP_{name}", value)
    assert main([verb]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert says in said.err
    assert not (tmp_path / "store").exists()


def test_versions_that_are_registered_while_others_are_pruned_have_their_files(filled: Filled) -> None:
    """In one transaction, as shipped checkpoints are; every other version has the content of one that was pruned."""
    filled.add(b"live")
    filled.promote(1)
    ended = threading.Event()

    def prune() -> None:
        pruner = Pruner(filled.store, {}, Rules(1), NOW)
        while not ended.is_set():
            pruner.prune()

    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(prune)
        for at in range(30):
            with filled.store.write() as connection:
                content = b"%d" % (at % 2)
                path = filled.storage.keep(MODEL, content)
                record = Record(model=MODEL, sha256=hashlib.sha256(content).hexdigest())
                filled.registry.add(connection, MODEL, path, record, job=None, now=NOW)
        ended.set()
        pruning.result()
    pruned(filled, keep=1)
    assert filled.numbers() == [1, 31]
    assert Checker(filled.store, NOW).check().faults == []
