import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.catalog import specs
from models.checkpoints import state_dict
from models.checkpoints.record import Record, exists, record_path
from models.errors import CheckpointError
from tests.fakes import LINE, ROOT, Line, save_line


def test_the_same_tensors_give_the_same_bytes_and_come_back(tmp_path: Path) -> None:
    first, second = save_line(tmp_path / "a"), save_line(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    network, record = state_dict.load("line", LINE, first)
    assert network(torch.tensor([[3.0]])).item() == 7
    assert record.sha256
    assert not network.training


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_line(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        state_dict.save_weights(Line(slope=9).state_dict(), path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_state_dict_without_a_record_is_loaded_with_the_default_arguments(tmp_path: Path) -> None:
    torch.save(Line(slope=5.0).state_dict(), tmp_path / "line.pt")
    network, record = state_dict.load("line", LINE, tmp_path / "line.pt")
    assert network(torch.tensor([[1.0]])).item() == 6
    assert record.arguments == {}


SEQUENTIALS: dict[str, nn.Module] = {
    "regressor": nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1)),
    "classifier": nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 2)),
    "mnist": nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENTIALS)
def test_a_state_dict_of_the_equivalent_sequential_computes_the_same(name: str, tmp_path: Path) -> None:
    theirs, spec = SEQUENTIALS[name], specs()[name]
    torch.save(theirs.state_dict(), tmp_path / f"{name}.pt")
    network, _ = state_dict.load(name, spec, tmp_path / f"{name}.pt")
    samples = torch.from_numpy(spec.preprocess(spec.example).copy())
    scaled = samples.float() / 255 if name == "mnist" else samples
    torch.testing.assert_close(network(samples), theirs(scaled))


def test_keys_that_do_not_fit_are_all_listed_and_change_nothing() -> None:
    network = Line()
    state = {"slope": torch.ones(2), "bias": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"missing offset; unexpected bias; slope has shape \(2,\) instead of"):
        state_dict.adopt(network, state)
    assert network.slope.item() == 2


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not finite: slope"):
        state_dict.adopt(Line(), {"slope": torch.tensor([float("nan")]), "offset": torch.ones(1)})


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_s05_nothing_but_tensors_is_ever_unpickled(write: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "line.pt"
    if write == "torch":
        torch.save({"slope": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary), protocol=2))
    with pytest.raises(CheckpointError, match=r"line\.pt is not a state_dict file"):
        state_dict.load("line", LINE, path)
    assert not canary.exists()


def archive(pickled: bytes, storage: bytes, path: Path) -> None:
    """A file as torch.save writes it, with other contents."""
    torch.save({"slope": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as honest:
        members = {name: honest.read(name) for name in honest.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, {"data.pkl": pickled, "0": storage}.get(name.rpartition("/")[2], content))


def tensor(storage_size: int, size: int, offset: int = 0) -> bytes:
    """The opcodes that make a tensor of `size` numbers on a storage that says to have `storage_size`."""
    numbers = b"".join(b"J" + struct.pack("<i", number) for number in (offset,))
    shape = b"(J" + struct.pack("<i", size) + b"t(J" + struct.pack("<i", 1) + b"t"
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuJ" + struct.pack(
        "<i",
        storage_size,
    )
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return rebuild + storage + b"tQ" + numbers + shape + b"\x89ccollections\nOrderedDict\n)RtR"


def state_of(value: bytes) -> bytes:
    return b"\x80\x02}X\x05\0\0\0slope" + value + b"s."


KEY = b"X\x05\0\0\0slopeK\x01"
CRAFTED = {
    "SETITEM on a list": (b"\x80\x02]" + KEY + b"s.", bytes(4)),
    "SETITEM on a number": (b"\x80\x02K\x05" + KEY + b"s.", bytes(4)),
    "SETITEM on a tensor": (b"\x80\x02" + tensor(1, 1) + KEY + b"s.", bytes(4)),
    "SETITEM on a class": (b"\x80\x02ctorch\nFloatStorage\n" + KEY + b"s.", bytes(4)),
    "SETITEMS on a list": (b"\x80\x02](" + KEY + KEY + b"u.", bytes(4)),
    "SETITEMS on a tensor": (b"\x80\x02" + tensor(1, 1) + b"(" + KEY + b"u.", bytes(4)),
    "a storage shorter than it says": (state_of(tensor(2**20, 2**20)), bytes(4)),
    "a storage of no byte": (state_of(tensor(2**30, 2**30)), b""),
    "a storage larger than it says": (state_of(tensor(1, 2**20)), bytes(4)),
    "a storage of negative size": (state_of(tensor(-1, 1)), bytes(4)),
    "a tensor beyond its storage": (state_of(tensor(1, 1, offset=2**30)), bytes(4)),
    "a tensor before its storage": (state_of(tensor(1, 1, offset=-(2**20))), bytes(4)),
}
READ = """
import sys
from pathlib import Path
from models.checkpoints.state_dict import read_state
from models.errors import CheckpointError
for path in map(Path, sys.argv[1:]):
    try:
        sys.stdout.write(f"read {list(read_state(path.read_bytes(), path.name))}\\n")
    except CheckpointError as err:
        sys.stdout.write(f"refused {err}\\n")
"""


@pytest.mark.slow  # imports torch in a process of its own
def test_s06_crafted_files_are_refused_and_their_reader_lives_on(tmp_path: Path) -> None:
    """In a process of its own, which a corrupted heap would end; the last file is a good one, and is read."""
    canary = tmp_path / "canary"
    paths = [tmp_path / f"{number}.pt" for number in range(len(CRAFTED))]
    for path, (pickled, storage) in zip(paths, CRAFTED.values(), strict=True):
        archive(pickled, storage, path)
    touching = b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode()
    archive(touching + b"\x85R.", bytes(4), tmp_path / "code.pt")
    archive(state_of(tensor(1, 1)), struct.pack("<f", 2.0), tmp_path / "good.pt")
    words = [sys.executable, "-c", READ, *map(str, [*paths, tmp_path / "code.pt", tmp_path / "good.pt"])]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *crafted, good = done.stdout.splitlines()
    assert good == "read ['slope']"
    said = dict(zip([*CRAFTED, "code"], crafted, strict=True))
    assert not {name: line for name, line in said.items() if not line.startswith("refused")}
    assert not canary.exists()


def test_s06_a_pytorch_that_reads_in_an_unsafe_way_reads_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save_line(tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(CheckpointError, match=r"2\.9\.1\+cpu reads .* install 2\.10 or newer"):
        state_dict.load("line", LINE, path)


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(Line(), tmp_path / "line.pt")
    with pytest.raises(CheckpointError, match="state_dict"):
        state_dict.load("line", LINE, tmp_path / "line.pt")


@pytest.mark.parametrize(
    "value",
    [[torch.ones(1)], {"slope": "2"}, {1: torch.ones(1)}, OrderedDict(a={"b": [torch.ones(1)]})],
)
def test_what_is_no_state_dict_says_so(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "line.pt")
    with pytest.raises(CheckpointError, match=r"torch\.save|not tensors"):
        state_dict.load("line", LINE, tmp_path / "line.pt")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"not a checkpoint at all"])
def test_damaged_weights_are_a_clear_error(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "line.pt").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"line\.pt"):
        state_dict.load("line", LINE, tmp_path / "line.pt")


def test_s06_every_truncation_is_refused(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    whole = path.read_bytes()
    record_path(path).unlink()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            state_dict.load("line", LINE, path)


def test_weights_that_are_not_those_of_the_record_are_refused(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    state_dict.save_weights(Line(slope=3).state_dict(), path)
    with pytest.raises(CheckpointError, match="sha256"):
        state_dict.load("line", LINE, path)


def test_missing_weights_are_named_without_their_folder(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    path.unlink()
    assert exists(path)  # the record is still there
    with pytest.raises(CheckpointError, match=r"line\.pt cannot be read") as raised:
        state_dict.load("line", LINE, path)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model": "other"}, "of other, not of line"),
        ({"arguments": {"depth": 3}}, "constructor arguments"),
        ([], "cannot be read as a record"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(fields: Any, match: str, tmp_path: Path) -> None:
    path = save_line(tmp_path)
    beside = record_path(path)
    record = json.loads(beside.read_text())
    beside.write_text(json.dumps({**record, **fields} if fields else fields))
    with pytest.raises(CheckpointError, match=match):
        state_dict.load("line", LINE, path)


def test_fields_of_a_later_version_in_a_record_are_passed_over(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    beside = record_path(path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "from_the_future": 1}))
    assert state_dict.load("line", LINE, path)[1] == Record(
        model="line",
        sha256=state_dict.load("line", LINE, path)[1].sha256,
    )
