"""Copies of objects in the store folder: whole, within their bound, and never lost before they are published."""

import os
import stat
import time
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from models.checkpoints.copies import Copies
from models.checkpoints.files import file_digest
from models.checkpoints.objects import Objects
from models.errors import BrokenObject, CheckpointError, ObjectsUnavailable

NEVER_S = 10_000  # ago, was a copy used last


class Machines:
    """Store folders of several machines, and the objects that they share."""

    def __init__(self, folder: Path) -> None:
        self.objects = Objects(MemoryStore())
        self._folder = folder

    def machine(self, name: str, most_bytes: int = 2**40) -> Copies:
        root = self._folder / name
        root.mkdir(exist_ok=True)
        return Copies(root, self.objects, most_bytes)


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    return Machines(tmp_path)


def written(copies: Copies, name: str, content: bytes = b"content") -> Path:
    path = copies.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def unused(path: Path) -> None:
    """Have a copy used long ago."""
    os.utime(path, (time.time() - NEVER_S, path.stat().st_mtime))


def test_what_one_machine_publishes_another_fetches(machines: Machines) -> None:
    a, b = machines.machine("a"), machines.machine("b")
    path = written(a, "checkpoints/m/1.pt")
    a.publish(path)
    assert [found.key for found in machines.objects.below("")] == [f"checkpoints/m/1.pt/{file_digest(path)}"]
    there = b.fetch(b.root / "checkpoints/m/1.pt", file_digest(path))
    assert there.read_bytes() == b"content"
    machines.objects.delete([found.key for found in machines.objects.below("")])
    assert b.fetch(there, file_digest(path)) == there  # not read again


def test_a_damaged_copy_is_fetched_anew_and_a_damaged_object_is_named(machines: Machines) -> None:
    a, b = machines.machine("a"), machines.machine("b")
    path = written(a, "checkpoints/m/1.pt")
    sha256, key = file_digest(path), f"checkpoints/m/1.pt/{file_digest(path)}"
    a.publish(path)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    assert a.fetch(path, sha256).read_bytes() == b"content"
    machines.objects.delete([key])
    machines.objects.put(key, b"other")
    with pytest.raises(BrokenObject, match=rf"^{key} in the object store is damaged \(sha256 differs\): restore it"):
        b.fetch(b.root / "checkpoints/m/1.pt", sha256)
    assert list(a.damaged("checkpoints")) == [key]
    machines.objects.delete([key])
    with pytest.raises(BrokenObject, match=rf"^{key} is missing in the object store: restore it"):
        b.fetch(b.root / "checkpoints/m/1.pt", sha256)
    assert not list(b.root.rglob("*.pt*"))


def test_the_copies_used_longest_ago_go_and_those_in_use_and_unpublished_ones_stay(machines: Machines) -> None:
    a = machines.machine("a", most_bytes=25)
    paths = [written(a, f"checkpoints/m/{number}.pt", b"%d123456789" % number) for number in range(3)]
    kept = written(a, "checkpoints/m/unpublished.pt", b"0123456789")
    for path in paths[:2]:
        a.publish(path)
        unused(path)
    a.fetch(paths[0], file_digest(paths[0]))  # is used now
    a.publish(paths[2])
    assert [path.exists() for path in (*paths, kept)] == [True, False, True, True]
    machines.machine("a", most_bytes=0).make_room()
    assert paths[2].exists(), "was used a moment ago"
    unused(paths[0])
    with paths[0].open("rb") as file:
        machines.machine("a", most_bytes=0).make_room()
        assert not paths[0].exists()
        assert file.read() == b"0123456789"  # an open file outlives its name


def test_the_newest_state_of_a_file_is_found_by_all(machines: Machines) -> None:
    a, b = machines.machine("a"), machines.machine("b")
    for content in (b"first", b"second", b"second", b"third"):
        a.replace(written(a, f"jobs/1/{content.decode()}.png", content).rename(a.root / "jobs/1/plot.png"))
        there = b.newest(b.root / "jobs/1/plot.png")
        assert there.read_bytes() == content
    assert len(machines.objects.below("jobs")) == 1
    mine = written(a, "jobs/1/fourth.png", b"fourth").rename(a.root / "jobs/1/plot.png")
    assert a.newest(mine).read_bytes() == b"fourth"  # of this machine, and not yet published
    b.replace(written(b, "jobs/1/fifth.png", b"fifth").rename(b.root / "jobs/1/plot.png"))
    assert a.newest(mine).read_bytes() == b"fifth"
    assert not b.newest(b.root / "jobs/2/plot.png").exists()


def test_a_folder_appears_whole_and_is_that_of_the_first_machine(machines: Machines) -> None:
    a, b, c = (machines.machine(name) for name in "abc")
    name = f"datasets/m/{'5' * 64}"
    for copies, order in ((a, b"12"), (b, b"21")):
        for file, content in (("manifest.json", b"{}"), ("rows.npy", order)):
            written(copies, f"{name}/{file}", content)
        written(copies, f"{name}/cache/key/samples", b"decoded")
        copies.publish_folder(copies.root / name)
    folder = c.fetch_folder(c.root / name)
    assert sorted(path.name for path in folder.iterdir()) == ["files.json", "manifest.json", "rows.npy"]
    assert (folder / "rows.npy").read_bytes() == b"12"
    (folder / "rows.npy").chmod(0o644)
    (folder / "rows.npy").write_bytes(b"!!")
    assert (c.fetch_folder(folder) / "rows.npy").read_bytes() == b"12"
    assert (c.has_folder(folder), c.has_folder(c.root / "datasets/m/none")) == (True, False)
    with pytest.raises(BrokenObject, match=r"datasets/m/none/files.json is missing"):
        c.fetch_folder(c.root / "datasets/m/none")
    unused(folder / "manifest.json")
    machines.machine("c", most_bytes=0).make_room()
    assert not folder.exists()
    c.remove(folder)
    assert machines.objects.below("") == []


def test_a_copy_that_cannot_be_written_is_an_error_of_the_disk(machines: Machines) -> None:
    a, b = machines.machine("a"), machines.machine("b")
    path = written(a, "checkpoints/m/1.pt")
    a.publish(path)
    (b.root / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"1\.pt cannot be copied from the object store: the store folder cannot"):
        b.fetch(b.root / "checkpoints/m/1.pt", file_digest(path))


def test_published_files_cannot_be_written_and_others_can(machines: Machines) -> None:
    a = machines.machine("a")
    path = written(a, "exports/m/1.safetensors")
    assert path.stat().st_mode & stat.S_IWUSR
    a.publish(path)
    assert not path.stat().st_mode & stat.S_IWUSR


def test_a_copy_answers_while_the_object_store_is_away(tmp_path: Path) -> None:
    class Away(Objects):
        def below(self, folder: str) -> list[object]:  # type: ignore[override]
            raise ObjectsUnavailable(folder)

    copies = Copies(tmp_path, Away(MemoryStore()), 0)
    path = written(copies, "jobs/1/plot.png")
    path.chmod(0o444)
    assert copies.newest(path) == path
    with pytest.raises(ObjectsUnavailable):
        copies.newest(tmp_path / "jobs/2/plot.png")
