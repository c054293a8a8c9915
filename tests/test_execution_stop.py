"""Graceful stop, however many signals ask for it."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from models.checkpoints.record import Record
from models.messages import Evaluate, encode_order
from service.execution.stop import Stop
from tests.fakes import ROOT, started_before

pytestmark = pytest.mark.slow

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREDICTION = {"inputs": [[0.5]]}
STORM = """
import os, signal, sys
from service.execution.stop import Stop
stop = Stop()
stop.at_signals()
ours = stop.set
left = 20
def nested():  # each handler is interrupted by the next signal
    global left
    left -= 1
    if left:
        os.kill(os.getpid(), signal.SIGTERM if left % 2 else signal.SIGINT)
    ours()
stop.set = nested
os.kill(os.getpid(), signal.SIGINT)
sys.exit(0 if stop.wait(60) and not left else 1)
"""


def test_a_signal_within_the_handler_of_another_does_not_block() -> None:
    subprocess.run([sys.executable, "-c", STORM], cwd=ROOT, check=True, timeout=60)


def test_every_waiting_thread_is_woken() -> None:
    stop = Stop()
    assert not stop.wait(0)
    woken = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in woken:
        thread.start()
    for _ in range(3):
        stop.set()
    for thread in woken:
        thread.join(60)
        assert not thread.is_alive()
    assert stop.is_set()
    assert stop.wait(0)


def test_the_end_of_the_input_requests_the_stop() -> None:
    stop, (reader, writer) = Stop(), os.pipe()
    stop.at_end_of_input(reader)
    os.write(writer, b"text is ignored")
    os.close(writer)
    assert stop.wait(60)
    os.close(reader)


def test_a_process_that_does_not_stop_ends_itself() -> None:
    code = (
        "import signal; from service.execution.stop import Stop; stop = Stop(); stop.at_signals();"
        "stop.exit_after(0.1); signal.raise_signal(signal.SIGTERM)\nwhile True: signal.pause()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


@contextmanager
def started(module: str, store: Path, processes: int = 1) -> Iterator["subprocess.Popen[str]"]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    settings = {"TORCHLOOP_STORE": str(store), "TORCHLOOP_PORT": "0", "TORCHLOOP_WEB_PROCESSES": str(processes)}
    with subprocess.Popen(
        [sys.executable, "-m", module], cwd=ROOT, env=environ | settings, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def seen(process: "subprocess.Popen[str]", pattern: str) -> "re.Match[str]":
    """The first line of the log with that pattern."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"it ended before {pattern}")


def send_many(process: "subprocess.Popen[str]", seed: int, until: int = 20) -> None:
    generator = random.Random(seed)  # noqa: S311
    for _ in range(generator.randint(1, until)):
        process.send_signal(generator.choice(KINDS))


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, log = process.communicate(timeout=120)  # the bound is for a failure
    return process.returncode, log


@pytest.mark.parametrize(("processes", "seed"), [(1, 1), (2, 2)])
def test_signals_while_it_serves_end_the_service(processes: int, seed: int, tmp_path: Path) -> None:
    with started("service", started_before(tmp_path), processes) as process:
        url = seen(process, r"running on (http://[\d.:]+)")[1]
        assert httpx.post(f"{url}/predict/regressor", json=PREDICTION, timeout=60).status_code == 200
        send_many(process, seed)
        status, log = end(process)
    assert status == 0
    assert "Traceback" not in log
    assert "killed" not in log


@pytest.mark.parametrize("processes", [1, 2])
def test_signals_while_it_loads_end_the_service(processes: int, tmp_path: Path) -> None:
    with started("service", tmp_path, processes) as process:
        seen(process, "Started server process")
        send_many(process, seed=3)
        status, log = end(process)
    assert status == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("seed", [8, 9])
def test_signals_while_the_load_hangs_end_the_service(seed: int, tmp_path: Path) -> None:
    code = "import service.__main__ as it, sys, time; from service.store.database import Store\n"
    code += "Store.migrate = lambda _: (sys.stderr.write('hangs\\n'), sys.stderr.flush(), time.sleep(600))\n"
    code += "sys.argv = ['service']; sys.exit(it.main())"
    environ = {**os.environ, "TORCHLOOP_STORE": str(tmp_path), "TORCHLOOP_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        seen(process, "hangs")
        send_many(process, seed)
        status, log = end(process)
    assert status == 0
    assert "Traceback" not in log
    assert "Timeout" not in log


@pytest.mark.parametrize("seed", [11, 12])
def test_signals_while_a_model_is_being_loaded_end_the_service(seed: int, tmp_path: Path) -> None:
    code = "import service.__main__ as it, sys, time; from service.inference.engine import Engine; load = Engine.load\n"
    code += "Engine.load = lambda s, name, *of: time.sleep(600) if name == 'mnist' else load(s, name, *of)\n"
    code += "sys.argv = ['service']; sys.exit(it.main())"
    environ = {**os.environ, "TORCHLOOP_STORE": str(started_before(tmp_path)), "TORCHLOOP_PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        url = seen(process, r"listening on (http://[\d.:]+), still loading mnist ")[1]
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/health/ready").json()["reasons"] == {"mnist": "mnist is being loaded"}
            assert client.post("/predict/regressor", json=PREDICTION).status_code == 200
        send_many(process, seed)
        status, log = end(process)
    assert status == 0
    assert "stopped while it was loading models" in log
    assert "Traceback" not in log
    assert "Timeout" not in log
    assert "running on" not in log


@pytest.mark.parametrize("processes", [1, 2])
def test_signals_while_it_stops_change_nothing(processes: int, tmp_path: Path) -> None:
    with started("service", started_before(tmp_path), processes) as process:
        url = seen(process, r"running on (http://[\d.:]+)")[1]
        with httpx.Client(base_url=url) as client:  # an idle connection: the stop takes two seconds
            client.get("/health/live")
            process.send_signal(signal.SIGTERM)
            seen(process, "Shutting down")
            send_many(process, seed=4)
            status, log = end(process)
    assert status == 0
    assert "Traceback" not in log


def test_signals_end_a_worker(tmp_path: Path) -> None:
    code = "import service.worker as it, sys, signal; from service.jobs.worker import Worker\n"
    code += "run = Worker.run; Worker.run = lambda s: (sys.stderr.write('ready\\n'), sys.stderr.flush(), run(s))\n"
    code += "sys.argv = ['worker']; sys.exit(it.main())"
    environ = {**os.environ, "TORCHLOOP_STORE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        seen(process, "ready")
        send_many(process, seed=5)
        status, log = end(process)
    assert status == 0
    assert "Traceback" not in log


def test_signals_end_the_torch_subprocess() -> None:
    record = Record(model="unknown", sha256="")
    order = Evaluate(model="unknown", config={}, data=ROOT, path=ROOT, record=record)
    with subprocess.Popen(
        [sys.executable, "-m", "training.process"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode_order(order).decode() + "\n")
        process.stdin.flush()
        assert process.stdout.readline()  # the order is done: it waits for the next one
        send_many(process, seed=6)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_signals_end_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "service.client", "--url", url, "models"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()
            with connection:
                send_many(process, seed=7)
                status, log = end(process)
    assert status == 130
    assert log == "torchloop: interrupted: a job that was queued, or a trial that was opened, goes on\n"
