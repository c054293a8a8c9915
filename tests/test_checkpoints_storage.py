"""Storage: one module knows the layout of the store folder."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.checkpoints import files
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from tests import sources
from tests.each import each_holds
from tests.fakes import LINE, ROOT
from tests.sources import called, nodes

FOLDERS = {"checkpoints", "exports", "jobs", "recipes"}
OWNERS = [ROOT / "models" / "checkpoints" / name for name in ("layout.py", "storage.py")]
FILES = {"plot.png", "tensorboard", "torchloop.db"}


def joined(path: Path) -> set[str]:
    """The constant parts that a file joins to paths with `/`, joinpath, Path() or glob."""
    found = set()
    for node in nodes(path):
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.left, node.right]
        elif isinstance(node, ast.Call) and called(node).split(".")[-1] in {"joinpath", "Path", "glob"}:
            parts = node.args
        for part in parts:
            found |= {
                text.value.strip("/")
                for text in ast.walk(part)
                if isinstance(text, ast.Constant) and isinstance(text.value, str)
            }
    return found


def joins_no_names_of_the_store_folder(path: Path) -> None:
    names = joined(path)
    if path not in OWNERS:
        assert not {name for name in names if name.split("/")[0] in FOLDERS or name.startswith("resume-")}
        assert not names & FILES
        assert not {"resume-", ".upload-"} & {
            node.value for node in nodes(path) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }


def test_no_other_module_joins_names_of_the_store_folder() -> None:
    assert set().union(*map(joined, OWNERS)) >= FOLDERS | FILES
    each_holds(joins_no_names_of_the_store_folder, sources.FILES)


def test_the_layout_is_that_of_existing_stores(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = "0123456789abcdef" * 4
    assert storage.checkpoint("mnist", sha256) == tmp_path / "checkpoints" / "mnist" / "0123456789ab.pt"
    assert storage.export(Record(model="mnist", sha256=sha256), LINE).parent == tmp_path / "exports" / "mnist"
    assert storage.export(Record(model="mnist", sha256=sha256), LINE).suffix == ".safetensors"
    assert storage.plot("j") == tmp_path / "jobs" / "j" / "plot.png"
    assert storage.tensorboard("j") == tmp_path / "jobs" / "j" / "tensorboard"
    assert storage.resume_point("j", 2) == tmp_path / "jobs" / "j" / "resume-2.pt"
    assert storage.recipes().parent == tmp_path / "recipes"
    assert storage.recipes().suffix == ".json"
    assert storage.database == tmp_path / "torchloop.db"


def test_the_same_weights_are_kept_once(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    path = storage.keep("line", b"weights")
    assert storage.keep("line", b"weights") == path
    assert path.read_bytes() == b"weights"
    assert list(path.parent.iterdir()) == [path]


def test_removing_resume_points_leaves_the_rest_of_the_job(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert storage.job_ids() == []
    for path in (storage.resume_point("j", 1), storage.resume_point("j", 2), storage.plot("j")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    storage.remove_resume_points("j")
    assert storage.job_ids() == ["j"]
    assert list((tmp_path / "jobs" / "j").iterdir()) == [storage.plot("j")]


def test_an_upload_is_removed_at_the_end(tmp_path: Path) -> None:
    with Storage(tmp_path).upload() as file:
        path = Path(file.name)
        assert path.read_bytes() == b""
        assert path.parent == tmp_path.resolve()
        assert path.name.startswith(".upload-")
    assert list(tmp_path.iterdir()) == []


NOW, HOUR = 1_000_000_000.0, 3600.0


@pytest.mark.parametrize(
    ("name", "age_s", "removed"),
    [
        (".upload-abc", 11, True),
        (".upload-abc", 100 * HOUR, True),
        (".upload-abc", 5, False),
        (".upload-abc", -2 * HOUR, False),
        ("checkpoints/line/.0123456789ab.pt.x1y2", 25 * HOUR, True),
        ("exports/line/.key.safetensors.x1y2", 25 * HOUR, True),
        ("jobs/j/.resume-1.pt.x1y2", 25 * HOUR, True),
        ("recipes/.key.json.x1y2", 25 * HOUR, True),
        ("checkpoints/line/.0123456789ab.pt.x1y2", 23 * HOUR, False),
        ("checkpoints/line/0123456789ab.pt", 10_000 * HOUR, False),
        ("jobs/j/plot.png", 10_000 * HOUR, False),
        ("torchloop.db", 10_000 * HOUR, False),
        (".hidden-by-the-user", 10_000 * HOUR, False),
    ],
)
def test_temporary_files_of_killed_processes_are_removed(
    tmp_path: Path, name: str, age_s: float, *, removed: bool
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of a file")
    os.utime(path, (NOW - age_s, NOW - age_s))
    assert Storage(tmp_path).remove_abandoned(NOW) == removed
    assert path.exists() is not removed


def test_the_folder_of_an_upload_is_removed_at_its_end_or_a_day_after_its_process_was_killed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with storage.unpacking() as folder:
        (folder / "checkpoint.pt").write_bytes(b"half of a file")
        assert storage.remove_abandoned(NOW) == 0
        assert list(folder.iterdir())
    assert not list(tmp_path.iterdir())
    killed = tmp_path / folder.name
    killed.mkdir()
    (killed / "checkpoint.pt").write_bytes(b"half of a file")
    for age_s, left in ((HOUR, [killed]), (25 * HOUR, [])):
        os.utime(killed, (NOW - age_s, NOW - age_s))
        storage.remove_abandoned(NOW)
        assert list(tmp_path.iterdir()) == left


@pytest.mark.parametrize("age_s", [0, 100, 1e9])
def test_an_upload_in_progress_is_left_alone_by_another_service_of_the_store(tmp_path: Path, age_s: float) -> None:
    with Storage(tmp_path).upload() as file:
        os.utime(file.name, (NOW - age_s, NOW - age_s))
        code = (
            "import sys; from pathlib import Path; from models.checkpoints.storage import Storage\n"
            f"sys.exit(Storage(Path(sys.argv[1])).remove_abandoned({NOW}))"
        )
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 0
        assert Path(file.name).exists()


def test_the_digest_of_sources_covers_subfolders(tmp_path: Path) -> None:
    below = tmp_path / "zoo" / "cage"
    below.mkdir(parents=True)
    seen = set()
    for text in ("x = 1\n", "x = 2\n"):
        (below / "lion.py").write_text(text)
        seen.add(files.digest_of_sources(tmp_path, "zoo"))
    (below / "lion.py").rename(below / "tiger.py")
    seen.add(files.digest_of_sources(tmp_path, "zoo"))
    assert len(seen) == 3
