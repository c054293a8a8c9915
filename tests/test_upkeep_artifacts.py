"""The files of a store in an object store: copied there and back, checked, and pruned."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.objects import S3Server
from models.catalog import specs
from models.checkpoints.copies import Copies
from models.checkpoints.objects import Objects
from service.command import main
from service.store.database import Store
from service.upkeep.faults import Checker
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Rules
from tests.templates import migrated
from tests.upkeep import MODEL, Filled, aged, environment

LARGE = {"table": np.zeros(3 * 2**18)}  # 6 MiB: a file
LATER = 4e9  # seconds since 1970: all files are old


def filled_folder(folder: Path) -> Path:
    """Return a store folder with a file of each kind, and others that are not copied."""
    store = Store(migrated(folder))
    filled = Filled(store)
    filled.add(b"weights", artifacts=LARGE)
    storage = filled.storage
    job = filled.job()
    constant = [storage.tensorboard(job.id) / "events.out", storage.original(MODEL, "0" * 64)]
    constant.append(storage.report(MODEL, job.id))
    for path in (*constant, storage.plot(job.id), storage.resume_point(job.id, 1), folder / "exports/m/1.safetensors"):
        aged(path).write_bytes(path.name.encode())
    for name in ("manifest.json", "rows.npy"):
        aged(storage.dataset(MODEL, "1" * 64) / name).write_bytes(name.encode())
    for name in ("uploads/1", "recipes/1.json", f"datasets/{MODEL}/.draft-1/manifest.json", ".upload-1"):
        aged(folder / name)
    store.close()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files that are copied."""
    skipped = ("uploads", "recipes", "torchloop.db", ".")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for name, path in files.items() if not name.startswith(skipped) and "/." not in name
    }


def copied(capsys: pytest.CaptureFixture[str], source: object, target: object, status: int = 0) -> dict[str, Any]:
    assert main(["artifacts", "copy", str(source), str(target), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_the_files_are_copied_there_and_back(tmp_path: Path, s3: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, folder = s3.create_bucket(), f"file://{tmp_path}/objects", filled_folder(tmp_path / "a")
    before = contents(folder)
    assert len(before) == 10
    assert copied(capsys, folder, first) == {"copied": 9, "present": 0, "faults": []}
    assert copied(capsys, folder, first) == {"copied": 0, "present": 9, "faults": []}
    assert copied(capsys, first, second)["copied"] == 11
    assert copied(capsys, first, second)["copied"] == 0
    assert copied(capsys, second, tmp_path / "b") == {"copied": 9, "present": 0, "faults": []}
    assert copied(capsys, second, tmp_path / "b") == {"copied": 0, "present": 9, "faults": []}
    assert contents(tmp_path / "b") == before == contents(folder)
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "b").rglob("*"))
    assert main(["artifacts", "copy", str(folder), first]) == 0
    assert capsys.readouterr().out == "copied 0 files; 9 files there already\n"


def test_what_cannot_be_copied_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, folder = f"file://{tmp_path}/objects", filled_folder(tmp_path / "a")
    copied(capsys, folder, url)
    objects = Objects.at(url)
    (key,) = [found.key for found in objects.below("exports")]
    objects.delete([key])
    objects.put(key, b"damaged")
    found = copied(capsys, url, tmp_path / "b", status=1)
    assert [fault.startswith(f"{key} in the object store is damaged") for fault in found["faults"]] == [True]
    assert main(["artifacts", "copy", url, str(tmp_path / "b")]) == 1
    assert f"failed: {key} in the object store is damaged" in capsys.readouterr().out
    assert main(["artifacts", "copy", str(folder), str(tmp_path / "b")]) == 2
    assert "copy them with cp -a" in capsys.readouterr().err
    for place in (tmp_path / "nowhere", f"file://{tmp_path}/nothing"):
        target = url if isinstance(place, Path) else tmp_path / "c"
        assert main(["artifacts", "copy", str(place), str(target)]) == 2
        assert f"{place} has no files of a store: check the name" in capsys.readouterr().err
    for one, other in ((url, url), (url, f"{url}/in"), (f"{url}/in/", url)):
        assert main(["artifacts", "copy", one, other]) == 2
        assert "FROM and TO are the same place" in capsys.readouterr().err
    assert main(["artifacts", "copy", url, f"{url}-2"]) == 1, "a similar name"
    capsys.readouterr()
    for words in (["copy", "ftp://host/", "b"], ["copy", "nobody@://", "b"], ["move", "a", "b"]):
        with pytest.raises(SystemExit):
            main(["artifacts", *words])


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """A store with an object store: version 1 is live, 2 and 3 are not, 3 has a file of an artifact."""
    store = Store(migrated(tmp_path / "store"), artifacts=f"file://{tmp_path}/objects")
    filled = Filled(store)
    for content, artifacts in ((b"1", {}), (b"2", {}), (b"3", LARGE)):
        filled.add(content, artifacts=artifacts)
    filled.promote(1)
    yield filled
    store.close()


def copies_of(filled: Filled) -> Copies:
    assert filled.storage.copies
    return filled.storage.copies


def key_of(filled: Filled, version: int) -> str:
    return next(
        found.key
        for found in copies_of(filled).objects.below("checkpoints")
        if found.key.endswith(filled.record(version).sha256)
    )


def test_fsck_checks_the_objects_not_the_copies(filled: Filled) -> None:
    copies = copies_of(filled)
    for path in (filled.store.folder / "checkpoints").rglob("*.*"):
        path.unlink()
    found = Checker(filled.store, LATER).check()
    assert (found.faults, found.versions, found.files) == ([], 3, 4)
    assert found.bytes > 2**20
    copies.objects.delete([key_of(filled, 1)])
    damaged = key_of(filled, 2)
    copies.objects.delete([damaged])
    copies.objects.put(damaged, b"damaged")
    copies.objects.put(f"checkpoints/{MODEL}/other.pt/{'4' * 64}", b"orphan")
    copies.objects.put(f"datasets/{MODEL}/{'5' * 64}/rows.npy/{'6' * 64}", b"damaged")
    copies.objects.put(f"exports/{MODEL}/7.safetensors/{'7' * 64}", b"damaged")
    faults = {fault.where: fault for fault in Checker(filled.store, LATER).check().faults}
    assert {where: fault.kind for where, fault in faults.items()} == {
        key_of_name(filled, 1): "missing",
        key_of_name(filled, 2): "damaged",
        f"checkpoints/{MODEL}/other.pt": "orphan",
        f"datasets/{MODEL}/{'5' * 64}": "orphan",
        f"exports/{MODEL}/7.safetensors": "damaged",
    }
    assert "it is missing in the object store, and version 1 of" in faults[key_of_name(filled, 1)].detail


def key_of_name(filled: Filled, version: int) -> str:
    return filled.registry.version(MODEL, version).path


def test_prune_removes_objects_and_copies(filled: Filled) -> None:
    copies = copies_of(filled)
    job, _ = filled.job(finished_days_ago=100), filled.job()
    copies.replace(aged(filled.storage.plot(job.id)))
    copies.objects.put(f"checkpoints/{MODEL}/other.pt/{'4' * 64}", b"orphan")
    copies.objects.put("uploads/1/0000000000000000", b"part")
    copies.objects.put("probes/1/probe", b"0")
    aged(filled.store.folder / f"datasets/{MODEL}/.fetched-1/manifest.json")
    gone = {key_of(filled, 2), key_of(filled, 3)}
    rules = Rules(0, 1, orphans=True)
    planned = Pruner(filled.store, specs(), rules, LATER).plan()
    assert gone <= {found.key for found in copies.objects.below("checkpoints")}
    done = Pruner(filled.store, specs(), rules, LATER).prune()
    assert done == planned
    assert (done.versions, done.jobs) == ([(MODEL, 2), (MODEL, 3)], [job.id])
    assert (len(done.files), done.failed, done.bytes > 2**20) == (8, [], True)
    assert [found.key for found in copies.objects.below("")] == [key_of(filled, 1)]
    assert not list((filled.store.folder / "datasets" / MODEL).iterdir())
    assert [path.name for path in (filled.store.folder / "checkpoints").rglob("*.*")] == [
        Path(key_of_name(filled, 1)).name
    ]


def test_why_an_object_store_cannot_be_used_is_one_line(
    store: Store, database_url: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(store, database_url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHLOOP_ARTIFACTS", s3.create_bucket())
    said = "torchloop: the object store cannot be reached or used; try again in a few seconds (Connection refused)\n"
    s3.stop()
    try:
        for words in (["fsck"], ["prune"], ["artifacts", "copy", "s3://bucket/prefix", str(store.folder)]):
            assert main(words) == 2
            assert capsys.readouterr().err == said
    finally:
        s3.start()
