"""torchloop fsck: each fault is named, and nothing is changed. On both databases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text, update

from models.catalog import specs
from models.checkpoints import artifact_files, onnx_file
from models.checkpoints.onnx_file import Exported
from service.command import main
from service.store.database import Store
from service.store.tables import promotions, versions
from service.upkeep.faults import Checker
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Rules
from tests.upkeep import MODEL, NOW, Filled, aged, environment

LARGE = {"table": np.zeros(3 * 2**18)}  # 6 MiB: a file


@pytest.fixture
def filled(store: Store) -> Filled:
    """A store in which nothing is wrong: version 1 is live, 2 has a file of an artifact, 3 is pruned."""
    filled = Filled(store)
    filled.add(b"1")
    filled.promote(1)
    filled.add(b"3")
    Pruner(store, specs(), Rules(0), NOW).prune()
    filled.add(b"2", artifacts=LARGE)
    return filled


def faults(filled: Filled) -> dict[str, str]:
    """Return kind and detail of each fault by its place, and require that looking changed nothing."""
    before = {path: path.stat().st_mtime for path in filled.store.folder.rglob("*.*") if ".db" not in path.name}
    found = Checker(filled.store, NOW).check().faults
    assert {path: path.stat().st_mtime for path in before} == before
    assert len({fault.where for fault in found}) == len(found)
    return {fault.where: f"{fault.kind}: {fault.detail}" for fault in found}


def weights(filled: Filled, version: int) -> Path:
    return filled.registry.path(filled.registry.version(MODEL, version))


def artifact(filled: Filled) -> Path:
    (name,) = artifact_files.digests(filled.record(3))
    return filled.storage.checkpoints(MODEL) / name


def test_nothing_is_wrong(filled: Filled) -> None:
    found = Checker(filled.store, NOW).check()
    assert (found.faults, found.versions, found.files) == ([], 2, 3)
    assert found.bytes == 2 + artifact(filled).stat().st_size


def test_missing_files_are_named_with_their_versions(filled: Filled) -> None:
    filled.add(b"1")
    paths = [weights(filled, 1), artifact(filled)]
    for path in paths:
        path.unlink()
    assert faults(filled) == {
        f"checkpoints/regressor/{path.name}": f"missing: No such file or directory, and {whose} of regressor cannot be "
        "loaded: restore it from a backup"
        for path, whose in zip(paths, ("versions 1, 4", "version 3"), strict=True)
    }


def test_a_version_that_is_pruned_meanwhile_is_not_missing(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(filled, 3)
    read: Any = Path.open

    def pruned_first(self: Path, *words: Any, **options: Any) -> Any:
        if self == path and path.exists():
            Pruner(filled.store, specs(), Rules(0), NOW).prune()
        return read(self, *words, **options)

    monkeypatch.setattr(Path, "open", pruned_first)
    assert Checker(filled.store, NOW).check().faults == []
    assert not path.exists()


def test_damaged_files_are_named_with_their_versions(filled: Filled) -> None:
    paths = [weights(filled, 1), artifact(filled)]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert faults(filled) == {
        f"checkpoints/regressor/{path.name}": f"damaged: its digest is not that of version {number} of regressor: "
        "restore it from a backup"
        for path, number in zip(paths, (1, 3), strict=True)
    }


def test_a_file_that_cannot_be_read_is_named(filled: Filled) -> None:
    path = weights(filled, 1)
    path.unlink()
    path.mkdir()
    assert "damaged: Is a directory" in faults(filled)[f"checkpoints/regressor/{path.name}"]


def test_damaged_exports_are_named(filled: Filled) -> None:
    path = filled.storage.export(filled.record(1), specs()[MODEL])
    onnx_file.write(Exported(b"onnx"), path)
    assert faults(filled) == {}
    path.write_bytes(b"half")
    assert faults(filled) == {
        f"exports/regressor/{path.name}": "damaged: this export cannot be read: delete it; it is made again when the "
        "version is next loaded"
    }


def test_orphans_are_named_with_the_command_that_removes_them(filled: Filled) -> None:
    aged(filled.storage.checkpoints(MODEL) / "a.pt")
    aged(filled.storage.checkpoints("theirs") / "b.pt")
    aged(filled.storage.plot("unknown"))
    pruned = filled.storage.keep(MODEL, b"3")
    orphan = "orphan: no version has it: torchloop prune removes it with --orphans, after a day"
    assert faults(filled) == {
        "checkpoints/regressor/a.pt": orphan,
        f"checkpoints/regressor/{pruned.name}": "orphan: its versions are pruned: torchloop prune removes it",
        "checkpoints/theirs/b.pt": orphan,
        "jobs/unknown/plot.png": "orphan: there is no such job: torchloop prune removes it with --orphans",
    }


def test_files_that_a_job_or_an_upload_is_about_to_register_are_no_orphans(filled: Filled) -> None:
    path = aged(filled.storage.checkpoints(MODEL) / "a.pt", 100)
    with filled.storage.upload():
        assert faults(filled) == {}
        aged(path)
        assert len(faults(filled)) == 1
    aged(path, 100)
    assert len(faults(filled)) == 1
    filled.running()
    assert faults(filled) == {}


def test_promoted_versions_without_row_or_files_are_named(filled: Filled) -> None:
    filled.promote(3)
    with filled.store.write() as connection:
        connection.execute(update(versions).where(versions.c.version == 1).values(pruned_at=1.0))
        row = {"model": MODEL, "version": 9, "action": "promote", "at": 1.0, "by": "x", "reason": ""}
        connection.execute(promotions.insert().values(row))
    found = faults(filled)
    restore = "restore it from a backup"
    assert found.pop("version 1 of regressor") == f"row: it could be rolled back to but is pruned: {restore}"
    assert found.pop("version 9 of regressor") == f"row: it is live but has no row: {restore}"
    assert len(found) == 1  # the weights of version 1


@pytest.mark.parametrize(
    "record",
    [
        {"model": MODEL, "sha256": "0", "artifacts": {"t": {"sha256 of file": "../x", "form": "npy"}}},
        {"sha256": "0"},
    ],
    ids=["digest", "fields"],
)
def test_a_damaged_record_is_named_and_its_model_has_no_orphans(filled: Filled, record: dict[str, object]) -> None:
    with filled.store.write() as connection:
        connection.execute(update(versions).where(versions.c.version == 3).values(record=record))
    weights(filled, 1).write_bytes(b"x")
    found = faults(filled)
    assert found["version 3 of regressor"].startswith("row: its record is damaged (the record ")
    assert len(found) == 2


def test_the_command_exits_with_1_if_something_is_wrong(
    filled: Filled, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(filled.store, database_url).items():
        monkeypatch.setenv(name, value)
    assert main(["fsck"]) == 0
    assert capsys.readouterr().out.startswith("checked 2 versions, 0 dataset versions, 3 files, 6,291,")
    path = weights(filled, 1)
    path.write_bytes(b"x")
    assert main(["fsck"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"damaged: checkpoints/regressor/{path.name}: its digest is not")
    assert lines[1].endswith(": 1 fault")
    assert main(["fsck", "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["kind"], fault["where"]) == ("damaged", f"checkpoints/regressor/{path.name}")


@pytest.mark.parametrize("verb", ["fsck", "prune"])
def test_tables_of_another_release_are_not_touched(
    verb: str, store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(store, database_url).items():
        monkeypatch.setenv(name, value)
    for change, says in (
        ("UPDATE alembic_version SET version_num = '0001'", "the tables are of another release"),
        ("DROP TABLE alembic_version", "the database has no tables of Torchloop"),
    ):
        with store.write() as connection:
            connection.execute(text(change))
        assert main([verb]) == 2
        assert says in capsys.readouterr().err
