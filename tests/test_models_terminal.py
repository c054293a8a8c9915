"""Output of `torchloop` and `python -m training` that a terminal, a pipe or a disk does not take."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ROOT

ASCII = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
FULL = "torchloop: the output cannot be written (No space left on device)\n"


def ended(code: str, stdout: Any, stderr: Any = subprocess.PIPE, **environ: str) -> subprocess.CompletedProcess[str]:
    """The end of a command that models.terminal runs in an interpreter of its own."""
    words = [sys.executable, "-c", f"import sys; from models.terminal import run\n{code}"]
    environ = {**os.environ, **environ}
    return subprocess.run(words, stdout=stdout, stderr=stderr, text=True, cwd=ROOT, env=environ, check=False)


@pytest.mark.parametrize("environ", ASCII, ids=["PYTHONIOENCODING", "LC_ALL"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_characters_that_a_terminal_does_not_have_are_escaped(environ: dict[str, str], stream: str) -> None:
    code = f"sys.exit(run(lambda: sys.{stream}.write('\\xe4 \\u9375 \\udcff') and 0))"
    done = ended(code, subprocess.PIPE, **environ)
    assert (done.returncode, getattr(done, stream)) == (0, "\\xe4 \\u9375 \\udcff")


ENDS = [
    "sys.exit(run(lambda: print('x' * {n}) or 0))",
    "sys.exit(run(lambda: (print('x' * {n}), sys.exit(0))[0]))",
    "sys.exit(run(lambda: print('x' * {n}, flush=True) or 0))",
    "sys.exit(run(lambda: run(lambda: print('x' * {n}) or 0)))",
]


@pytest.mark.parametrize("n", [1, 100_000])
@pytest.mark.parametrize("code", ENDS)
def test_a_closed_pipe_ends_quietly_with_1(code: str, n: int) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        assert ended(code.format(n=n), out).stderr == ""
        assert ended(code.format(n=n), out, out).returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("n", [1, 100_000])
@pytest.mark.parametrize("code", ENDS)
def test_a_full_disk_is_one_line(code: str, n: int) -> None:
    with Path("/dev/full").open("wb") as out:
        done = ended(code.format(n=n), out)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_another_failure_of_the_system_is_one_line() -> None:
    done = ended("sys.exit(run(lambda: open('/no/such/file') and 0))", subprocess.PIPE)
    assert (done.returncode, done.stderr) == (
        1,
        "torchloop: /no/such/file cannot be used (No such file or directory)\n",
    )


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "torchloop --help": lambda _: ["service.command", "--help"],
    "torchloop --version": lambda _: ["service.command", "--version"],
    "training --help": lambda _: ["training", "--help"],
    "training": lambda path: ["training", "regressor", "--epochs", "20", "--output", str(path / "ü-鍵.pt")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_end_quietly_if_the_reader_has_seen_enough(name: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", *COMMANDS[name](tmp_path)]
    with os.fdopen(write, "wb") as out:
        done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, cwd=ROOT, timeout=60, check=False)
    assert done.stderr == b""


@pytest.mark.slow
@pytest.mark.parametrize("environ", ASCII, ids=["PYTHONIOENCODING", "LC_ALL"])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_run_on_ascii_terminals(name: str, environ: dict[str, str], tmp_path: Path) -> None:
    words = [sys.executable, "-m", *COMMANDS[name](tmp_path)]
    done = subprocess.run(words, capture_output=True, cwd=ROOT, env={**os.environ, **environ}, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("module", ["models.terminal", "service.client.terminal"])
def test_closed_streams_are_empty(module: str, closed: str) -> None:
    code = (
        f"import sys; from {module} import run\n"
        "sys.exit(run(lambda: (sys.stdin.read(), sys.stdout.isatty(), print('x', file=sys.stderr)) and 0))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr in {"", "x\n"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.slow
def test_a_run_whose_progress_cannot_be_written_saves_its_checkpoint(tmp_path: Path) -> None:
    words = [sys.executable, "-m", *COMMANDS["training"](tmp_path)]
    with Path("/dev/full").open("wb") as out:
        done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, FULL)
    assert (tmp_path / "ü-鍵.pt").is_file()
