"""Large artifacts: files beside the weights, whose digests are checked."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifacts import ArtifactError, plain
from models.checkpoints import artifact_files
from models.checkpoints.record import Record
from models.errors import CheckpointError

LARGE = {
    "table": np.arange(1_200_000, dtype=np.float32),
    "words": {f"word {number}": number for number in range(300_000)},
    "labels": ("no", "yes"),
}


def kept(folder: Path, artifacts: dict[str, Any]) -> dict[str, Any]:
    """Write the files and return the record's form, as JSON keeps it."""
    found, files = artifact_files.divided(artifacts)
    artifact_files.write(files, folder)
    record: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return record


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.artifact")
    return path


@pytest.mark.slow
def test_the_largest_artifacts_are_files_and_come_back_as_they_were(tmp_path: Path) -> None:
    found = kept(tmp_path, LARGE)
    assert len(json.dumps(found)) < 1000
    assert found["labels"] == ["no", "yes"]
    assert len(list(tmp_path.iterdir())) == 2
    artifacts = artifact_files.load(found, tmp_path)
    np.testing.assert_array_equal(artifacts["table"], LARGE["table"])
    assert artifacts["table"].dtype == np.float32
    assert artifacts["words"] == LARGE["words"]
    assert plain(LARGE)["labels"] == artifacts["labels"] == ["no", "yes"]


def test_small_artifacts_need_no_file(tmp_path: Path) -> None:
    found = kept(tmp_path, {"words": ["a"], "mean": np.zeros(3)})
    assert not list(tmp_path.iterdir())
    assert artifact_files.load(found, tmp_path / "none")["words"] == ["a"]


def test_many_artifacts_of_middle_size_leave_the_record_small(tmp_path: Path) -> None:
    artifacts = {f"part {number}": "x" * 1_500_000 for number in range(4)}
    found = kept(tmp_path, artifacts)
    assert len(json.dumps(found)) <= 4 * 2**20
    assert artifact_files.load(found, tmp_path) == artifacts


def test_the_same_content_has_the_same_digest_whatever_its_order_in_memory(tmp_path: Path) -> None:
    table = np.arange(1_200_000, dtype=np.float32).reshape(1000, 1200)
    assert kept(tmp_path, {"table": table}) == kept(tmp_path, {"table": table.copy()})
    for array in (table, table.T, table[::2, ::-1].repeat(3, axis=0)):
        np.testing.assert_array_equal(artifact_files.load(kept(tmp_path, {"t": array}), tmp_path)["t"], array)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    found = kept(tmp_path, {"table": LARGE["table"]})
    path = the_file(tmp_path)
    with path.open("r+b") as file:
        file.seek(-1, io.SEEK_END)
        file.write(b"?")
    said = rf"{path.name}, the file of the artifact table, is not the one that the record names \(sha256 differs\)"
    with pytest.raises(CheckpointError, match=said):
        artifact_files.load(found, tmp_path)
    record = Record(model="text", sha256="0", artifacts=found)
    with pytest.raises(CheckpointError, match=said):
        artifact_files.copy(record, tmp_path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    found = kept(tmp_path, {"table": LARGE["table"]})
    the_file(tmp_path).unlink()
    with pytest.raises(CheckpointError, match="of the artifact table, cannot be read") as caught:
        artifact_files.load(found, tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_a_copy_is_as_good_as_the_files(tmp_path: Path) -> None:
    record = Record(model="text", sha256="0", artifacts=kept(tmp_path / "one", LARGE))
    artifact_files.copy(record, tmp_path / "one", tmp_path / "two")
    assert sorted(artifact_files.names(record)) == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert artifact_files.load(record.artifacts, tmp_path / "two")["words"] == LARGE["words"]


@pytest.mark.parametrize("digest", ["../../etc/passwd", "/etc/passwd", "", 5, "A" * 64, "0" * 63])
def test_a_digest_that_is_none_is_no_path(digest: Any, tmp_path: Path) -> None:
    found = {"words": {"sha256 of file": digest, "form": "json"}}
    with pytest.raises(CheckpointError, match="by something else than a SHA-256 digest"):
        artifact_files.load(found, tmp_path)
    with pytest.raises(CheckpointError, match="by something else than a SHA-256 digest"):
        artifact_files.copy(Record(model="text", sha256="0", artifacts=found), tmp_path, tmp_path / "copy")


def forged(folder: Path, content: bytes, form: str) -> dict[str, Any]:
    """Write a file under its true digest, and return the record's form."""
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / f"{sha256[:24]}.artifact").write_bytes(content)
    return {"x": {"sha256 of file": sha256, "form": form}}


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "form"),
    [
        pytest.param(npy(np.array([{}], dtype=object)), "npy", id="pickle"),
        pytest.param(npy(np.zeros(3)).replace(b"(3,)", b"(9**9,)"[:4]), "npy", id="damaged header"),
        pytest.param(npy(np.zeros(1000)).replace(b"(1000,)", b"(9000,)"), "npy", id="more declared than there is"),
        pytest.param(b"", "npy", id="empty"),
        pytest.param(b"{", "json", id="half of a JSON text"),
        pytest.param(b"[" * 100_000, "json", id="deep JSON"),
        pytest.param(b"\xff", "json", id="no text"),
    ],
)
def test_forged_content_is_refused(content: bytes, form: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the artifacts in the record cannot be read"):
        artifact_files.load(forged(tmp_path, content, form), tmp_path)


def test_an_artifact_cannot_pose_as_a_file() -> None:
    with pytest.raises(ArtifactError, match="words has the keys of a file's entry"):
        artifact_files.divided({"words": {"sha256 of file": "0", "form": "json"}})


def test_arrays_of_objects_are_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match="words is an array of Python objects"):
        artifact_files.divided({"words": np.full(1_000_000, None)})
