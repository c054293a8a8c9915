"""Heartbeats: a child that hangs is replaced as one that ends."""

import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from service.execution.supervisor import Deadline, Kept


def test_the_first_heartbeat_may_take_longer_than_the_next() -> None:
    clock = [0.0]
    deadline = Deadline(start_s=120, silent_s=10, now=lambda: clock[0])
    clock[0] = 119
    assert deadline.left() == 1
    deadline.extend()
    assert deadline.left() == 10
    clock[0] = 129
    assert deadline.left() == 0
    clock[0] = 500
    assert deadline.left() == 0
    deadline.extend()
    assert deadline.left() == 10


@pytest.mark.parametrize("ignored", [False, True], ids=["plain", "deaf to SIGTERM"])
def test_a_child_without_a_heartbeat_is_killed_and_started_again(
    ignored: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "hung.py").write_text(
        "import os, signal, sys\n"
        f"if {ignored}: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True: signal.pause()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    clock = itertools.count(0, 1000)  # every look at it finds the deadline over
    twice = threading.Semaphore(0)

    def now() -> float:
        twice.release()
        return float(next(clock))

    kept = Kept(["hung"], lambda: None, silent_s=10, now=now)
    kept.start()
    for _ in range(4):  # two looks for each child
        assert twice.acquire(timeout=60)
    kept.ask_to_stop()
    kept.wait(0)  # a child that is deaf to SIGTERM is killed
    killed = [record for record in caplog.records if record.message == "killed: its event loop does not answer"]
    assert len(killed) >= 1
    assert {vars(record)["exit"] for record in caplog.records if "exit" in vars(record)} == {-signal.SIGKILL}


def test_a_child_that_beats_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beating.py").write_text(
        "import os, sys\n"
        "open('started', 'a').write('.')\n"
        "for _ in range(5): os.write(int(sys.argv[1]), b'.')\n"
        "sys.stdin.read()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    looks = threading.Semaphore(0)

    def now() -> float:
        looks.release()
        return 0.0

    kept = Kept(["beating"], lambda: None, silent_s=600, now=now)
    kept.start()
    for _ in range(4):  # at the start, and after heartbeats
        assert looks.acquire(timeout=60)
    kept.ask_to_stop()
    kept.wait(60)
    assert (tmp_path / "started").read_text() == "."


def test_a_child_that_is_still_importing_its_modules_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "begun")
    (tmp_path / "importing.py").write_text(
        f"import time; open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(600)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = Kept(["importing"], lambda: None)
    kept.start()
    (tmp_path / "begun").read_text()  # waits for it
    kept.ask_to_stop()
    kept.wait(60)
    assert caplog.messages == []
