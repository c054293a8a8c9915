"""TORCHLOOP_DEVICE=cuda:all: the web processes of a service get its devices in turn. The devices are pretended."""

import os
import threading
from pathlib import Path

import pytest

from service.__main__ import environments, main
from service.execution.supervisor import Kept

NAMES = ("TORCHLOOP_DEVICE", "TORCHLOOP_WEB_PROCESSES")


@pytest.mark.parametrize(
    ("found", "per_device", "devices"),
    [
        (1, "1", ["cuda:0"]),
        (3, "1", ["cuda:0", "cuda:1", "cuda:2"]),
        (2, "2", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
    ],
)
def test_each_device_has_as_many_web_processes_as_the_setting_says(
    found: int, per_device: str, devices: list[str]
) -> None:
    environ = {"TORCHLOOP_DEVICE": "cuda:all", "TORCHLOOP_WEB_PROCESSES": per_device, "OTHER": "1"}
    names = [f"cuda:{number}" for number in range(found)]
    given = environments(environ, names, int(per_device) * found)
    assert [[one[name] for name in NAMES] for one in given] == [[name, str(len(devices))] for name in devices]
    assert {one["OTHER"] for one in given} == {"1"}


def test_a_web_process_that_is_started_again_gets_the_same_device(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(
        "import os\n"
        "log = open(os.environ['LOG'], 'a')\n"
        "print(os.environ['TORCHLOOP_DEVICE'], file=log, flush=True)\n"
        "raise SystemExit(3 if open(os.environ['LOG']).read().count('\\n') == 3 else 1)\n"
    )
    log, given_up = tmp_path / "log", threading.Event()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "LOG": str(log)}
    second = environments(environ, ["cuda:0", "cuda:1"], 2)[1]
    second["PYTHONPATH"] = str(tmp_path)
    kept = Kept(["dies"], given_up.set, environ=second, restart_s=0)
    kept.start()
    assert given_up.wait(60)
    kept.wait(60)
    assert log.read_text().splitlines() == ["cuda:1"] * 3


@pytest.mark.parametrize(
    ("count", "processes", "told"),
    [
        (0, "1", "torchloop: device 'cuda:all' is not available here, PyTorch finds no CUDA device: use auto or cpu\n"),
        (8, "33", "torchloop: TORCHLOOP_WEB_PROCESSES: Input should be less than or equal to 256\n"),
    ],
)
def test_too_few_devices_or_too_many_processes_are_refused_in_one_line(
    count: int, processes: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setenv("TORCHLOOP_DEVICE", "cuda:all")
    monkeypatch.setenv("TORCHLOOP_WEB_PROCESSES", processes)
    assert main([]) == 2
    assert capsys.readouterr().err == told
