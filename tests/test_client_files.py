"""Files of the client: no more than a stated number of bytes is read."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import checkpoints, files, inputs
from service.client.errors import BadArgument

MOST = 1000
SAYS = "has more than 1,000 bytes, the most that is read"


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", MOST)


def fifo(folder: Path) -> Path:
    """A pipe with a name, into which a thread writes until the reader closes it."""
    path = folder / "fifo"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as out:
            try:
                while True:
                    out.write(bytes(4096))
            except BrokenPipeError:
                pass

    threading.Thread(target=write, daemon=True).start()
    return path


def sparse(folder: Path) -> Path:
    """A file of 1 TB, which takes no room."""
    path = folder / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


ENDLESS: dict[str, Callable[[Path], Any]] = {
    "a device": lambda _: "/dev/zero",
    "an open device": lambda _: Path("/dev/zero").open("rb"),  # noqa: SIM115
    "an unbuffered device": lambda _: Path("/dev/zero").open("rb", buffering=0),  # noqa: SIM115
    "a FIFO": fifo,
    "a huge file": sparse,
    "an open huge file": lambda folder: sparse(folder).open("rb"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_refused_after_a_stated_number_of_bytes(kind: str, tmp_path: Path) -> None:
    item = ENDLESS[kind](tmp_path)
    with pytest.raises(BadArgument, match=SAYS):
        files.read(item, MOST)
    if isinstance(item, io.IOBase):
        assert not item.closed
        item.close()


def test_a_file_of_just_that_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MOST)
    for item in (tmp_path / "a", b"x" * MOST, io.BytesIO(b"x" * MOST)):
        assert files.read(item, MOST)[0] == b"x" * MOST
    for item in (b"x" * (MOST + 1), io.BytesIO(b"x" * (MOST + 1))):
        with pytest.raises(BadArgument, match=SAYS):
            files.read(item, MOST)


def test_an_unbuffered_pipe_is_read_to_its_end() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as pipe, os.fdopen(write, "wb", buffering=0) as out:

        def write_on() -> None:
            out.write(b" second")
            out.close()

        out.write(b"first")
        threading.Thread(target=write_on).start()
        assert files.read(pipe, MOST)[0] == b"first second"


def test_the_files_of_a_form_are_limited_together(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 400)
    paths = [tmp_path / name for name in "abc"]
    assert len(inputs.body(paths[:2])["files"]) == 2
    with pytest.raises(BadArgument, match=r"more than|together"):
        inputs.body(paths)


def test_checkpoints_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 10 * MOST)
    assert checkpoints.content(bytes(10 * MOST)) == bytes(10 * MOST)
    with pytest.raises(BadArgument, match="more than 10,000 bytes"):
        checkpoints.content("/dev/zero")


@pytest.mark.parametrize("kind", [list, str])
def test_a_folder_is_not_read(kind: type, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="is a folder: name the files in it"):
        inputs.body([tmp_path] if kind is list else str(tmp_path))
