"""Versions that the web processes have loaded."""

import os
import subprocess
import sys
from pathlib import Path

from service.delivery.followers import MIXED, Followers


def test_versions_are_those_of_all_running_processes(tmp_path: Path) -> None:
    own, other = Followers(tmp_path), Followers(tmp_path, os.getppid())
    assert own.versions("line") == set()
    own.write("line", 1)
    own.write("mnist", 7)
    other.write("line", 2)
    assert own.versions("line") == other.versions("line") == {1, 2}
    assert other.versions("mnist") == {7}
    own.write("line", 2)
    assert own.versions("line") == other.versions("line") == {2}


def test_a_process_that_has_ended_does_not_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    Followers(tmp_path, ended.pid).write("line", 1)
    own = Followers(tmp_path)
    own.write("line", 2)
    assert own.versions("line") == {2}


def test_a_file_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    own = Followers(tmp_path)
    own.write("line", 2)
    (tmp_path / f".{os.getppid()}.loaded").write_text("{")
    assert own.versions("line") == {2}


def test_without_a_folder_there_is_one_process() -> None:
    own = Followers(None)
    own.write("line", 1)
    own.write("line", 2)
    assert own.versions("line") == {2}
    assert own.versions("mnist") == set()


def test_a_stage_of_a_trial_is_followed_once_all_processes_do(tmp_path: Path) -> None:
    own, other = Followers(tmp_path), Followers(tmp_path, os.getppid())
    own.write("line", 1)
    other.write("line", 1)
    assert own.stages() == {}
    own.write_trials({"t1": 0, "t2": 3})
    assert other.stages() == {"t1": MIXED, "t2": MIXED}
    other.write_trials({"t1": 1, "t2": 3})
    assert own.stages() == {"t1": MIXED, "t2": 3}
    own.write_trials({"t1": 1})
    assert own.stages() == {"t1": 1, "t2": MIXED}
    other.write_trials({})
    own.write_trials({})
    assert own.stages() == {}
