"""SIGINT, SIGTERM and SIGHUP, any number of them and at any moment, end each command without a traceback."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import ROOT

pytestmark = pytest.mark.slow

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REGRESSOR = "models/pretrained/regressor.pt"
# Command -> exit status after signals, and the number of imports that it surely makes: some as late as in its main.
COMMANDS: dict[str, tuple[int, int]] = {
    "service": (0, 650),
    "service.worker": (0, 380),
    "service.serve": (0, 200),
    f"service.register regressor {REGRESSOR}": (130, 900),
    "service.client --url http://127.0.0.1:1 models": (130, 220),
    "service.command serve": (0, 650),
    "service.command worker": (0, 380),
    "service.command jobs --url http://127.0.0.1:1": (130, 220),
    "service.command train regressor --epochs 10000": (130, 1_300),
    "training regressor --epochs 10000": (130, 1_300),
    "training compare regressor --vary lr=0.1,0.2 --epochs 10000": (130, 1_300),
    f"training evaluate regressor {REGRESSOR}": (130, 800),
    "training.process": (143, 800),
    "environment --no-such-option": (130, 20),
}
SEEDS = 2
MOMENTS = [
    (command, seed, random.Random(f"{command} {seed}").randint(1, imports))  # noqa: S311
    for command, (_, imports) in COMMANDS.items()
    for seed in range(SEEDS)
]


def environ(store: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    return inherited | {"TORCHLOOP_STORE": str(store), "TORCHLOOP_PORT": "0"}


@pytest.mark.parametrize(("command", "seed", "count"), MOMENTS)
def test_signals_while_modules_are_imported_end_a_command(command: str, seed: int, count: int, tmp_path: Path) -> None:
    words: list[str | Path] = [sys.executable, ROOT / "tests" / "storm.py", str(seed), str(count), *command.split()]
    ended = subprocess.run(
        words,
        cwd=ROOT,
        env=environ(tmp_path),
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=120,  # for a failure
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == COMMANDS[command][0], ended.stderr


@contextmanager
def started(words: Sequence[str], store: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environ(store) | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def send_many(process: "subprocess.Popen[str]", seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311
    for _ in range(generator.randint(2, 20)):
        process.send_signal(generator.choice(KINDS))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_signals_during_a_run_end_it_and_leave_no_file(seed: int, tmp_path: Path) -> None:
    words = [
        "training",
        "mnist",
        "--dataset",
        "digits",
        "--limit",
        "100",
        "--epochs",
        "10000",
        "--store",
        str(tmp_path),
    ]
    with started(words, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch ")
        send_many(process, seed)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "python -m training: interrupted: nothing more is saved\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_signals_during_a_comparison_end_it(seed: int, tmp_path: Path) -> None:
    words = ["training", "compare", "regressor", "--vary", "epochs=1,10000"]
    with started(words, tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("epochs 1: ")
        send_many(process, seed)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "python -m training: interrupted: nothing more is saved\n")


def run(code: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-c", code]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_only_the_first_signal_raises_and_later_ones_do_not_interrupt_the_cleanup() -> None:
    ended = run("""
import os, signal, sys
from models.signals import Interruption
def both():
    for kind in (signal.SIGTERM, signal.SIGINT) * 10:
        os.kill(os.getpid(), kind)
try:
    with Interruption(60):
        try:
            both()
        finally:
            both()
            print("cleaned up")
except KeyboardInterrupt:
    both()
    print("ended")
both()
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cleaned up\nended\n", "")


def test_an_interruption_that_a_destructor_swallowed_is_raised_by_the_next_check() -> None:
    ended = run("""
import os, signal, sys
from models.signals import Interruption
class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs in here
            pass
sys.unraisablehook = lambda dropped: print("lost")
try:
    with Interruption(60) as interruption:
        interruption.check()
        Swallowing()
        print("goes on")
        interruption.check()
except KeyboardInterrupt:
    print("ended")
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "lost\ngoes on\nended\n", "")


@pytest.mark.parametrize("context", ["models.signals.Interruption", "service.client.interruption.interrupted_once"])
def test_a_command_that_does_not_end_after_a_signal_is_ended(context: str) -> None:
    ended = run(f"""
import contextlib, os, signal
import models.signals, service.client.interruption
with {context}(0.1):
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    while True:
        signal.pause()
""")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


@pytest.mark.parametrize("context", ["models.signals.Interruption", "service.client.interruption.interrupted_once"])
def test_a_signal_within_exec_does_not_change_the_exit_status(context: str, tmp_path: Path) -> None:
    """Dataclasses and named tuples are made by exec(): a KeyboardInterrupt in it is remembered by `python -m`."""
    (tmp_path / "command.py").write_text(f"""
import os, signal, sys
import models.signals, service.client.interruption
try:
    with {context}(60):
        exec("os.kill(os.getpid(), signal.SIGINT)")
except KeyboardInterrupt:
    sys.exit(7)
""")
    words = [sys.executable, "-m", "command"]
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (7, "")


def test_without_a_signal_the_handlers_are_as_before() -> None:
    ended = run("""
import signal
from models.signals import Interruption, handled
from service.client.interruption import interrupted_once
before = [signal.getsignal(number) for number in handled()]
with Interruption(60), interrupted_once():
    assert [signal.getsignal(number) for number in handled()] != before
assert [signal.getsignal(number) for number in handled()] == before
""")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("module", ["models.signals", "service.client.interruption", "environment"])
def test_a_command_of_nohup_goes_on_when_its_terminal_is_closed(module: str) -> None:
    ended = run(f"""
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from {module} import exit_at_signals
exit_at_signals()
os.kill(os.getpid(), signal.SIGHUP)
print("goes on")
os.kill(os.getpid(), signal.SIGTERM)
""")
    assert (ended.stdout, ended.returncode) == ("goes on\n", 130)
