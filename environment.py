"""Set up .venv: `python environment.py`, or `python environment.py --dev` with what tests, checks and benchmarks need.

Needs Python 3.11 or newer and nothing else; `make` calls it before each target. It returns at once if .venv is up to
date, updates a stale one, and rebuilds one that does not run or belongs to another interpreter.
"""

import os
import signal
import sys

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored by nohup
    _SIGNALS.append(signal.SIGHUP)
_INTERRUPTED = 130


def exit_at_signals() -> None:
    """Have SIGINT, SIGTERM and SIGHUP end the process at once: if there is nothing to clean up."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(_INTERRUPTED))


if __name__ == "__main__":
    exit_at_signals()
    if sys.version_info < (3, 11):  # noqa: UP036 - the imports below would fail
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Torchloop needs Python 3.11 or newer, and {sys.executable} is {found}: make PYTHON=/path/to/another")

import argparse
import hashlib
import platform
import re
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SERVING, DEVELOPMENT = ("requirements.lock",), ("requirements.lock", "requirements-dev.lock")
_BUILDS = ("cpu", "cuda")
# What the NVIDIA driver creates: its version under Linux, its control device in a container, its library under WSL.
_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")
_REASONS = {
    "cpu": "No NVIDIA GPU is here: PyTorch's build for CPUs. TORCHLOOP_TORCH=cuda takes the one for GPUs.",
    "cuda": "An NVIDIA GPU is here: PyTorch's build for CUDA. TORCHLOOP_TORCH=cpu takes the small one for CPUs.",
}
_REPORT_EVERY_S = 15.0
_MIB = {"kB": 1 / 1024, "MB": 1.0, "GB": 1024.0}
_WHO = "import pip, sys; print('%d.%d' % sys.version_info[:2], sys.base_prefix)"


class SetUpError(Exception):
    """The set-up cannot go on, for this reason."""


def main(words: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Return the exit status: 1 if the set-up failed, 2 for a bad option or setting."""
    parser = argparse.ArgumentParser(prog="environment.py", description="Set up .venv, if it is missing or stale.")
    parser.add_argument("--dev", action="store_true", help="with the tools of tests, checks and benchmarks")
    parser.add_argument("--no-command", action="store_true", help="without the command `torchloop`: dependencies only")
    options = parser.parse_args(words)
    asked = environ.get("TORCHLOOP_TORCH", "")
    if asked not in {"", *_BUILDS}:
        parser.error(f"TORCHLOOP_TORCH={asked}: it is {' or '.join(_BUILDS)}, or not set")
    try:
        _interrupt_once()
        Environment(ROOT, asked).set_up(DEVELOPMENT if options.dev else SERVING, command=not options.no_command)
        exit_at_signals()
    except SetUpError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the next call goes on from here\n")
        return _INTERRUPTED
    return 0


def _interrupt_once() -> None:
    """Raise KeyboardInterrupt at the first signal only, so that later ones do not interrupt the cleanup."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


class Environment:
    """The folder .venv of a checkout. `asked` is the build of PyTorch that the user named: cpu, cuda, or "" for either.

    .venv/torch holds the build that is installed, .venv/ready-LOCK the digest of each lock file that was installed.
    """

    def __init__(self, root: Path, asked: str) -> None:
        self._root = root
        self._folder = root / ".venv"
        self._python = self._folder / "bin" / "python"
        self._built = self._folder / "torch"
        self._asked = asked
        self._progress = Progress()

    def set_up(self, locks: Sequence[str], *, command: bool) -> None:
        """Bring .venv up to date with these lock files. Raises SetUpError."""
        if reason := self._why_rebuilt():
            say(reason)
            self._create()
        stale = [lock for lock in locks if read(self._stamp(lock)) != self._digest(lock)]
        if stale:
            started = time.monotonic()
            self._install_locks(locks)
            for lock in locks:
                self._stamp(lock).write_text(self._digest(lock))
            say(f"Installed in {time.monotonic() - started:.0f} s.")
        if command and read(self._stamp("command")) != self._digest("pyproject.toml"):
            self._install("--no-deps", "--no-build-isolation", "--editable", str(self._root))
            self._stamp("command").write_text(self._digest("pyproject.toml"))

    def _why_rebuilt(self) -> str:
        """Why .venv must be created, or created again; "" if it can stay."""
        if not self._folder.exists():
            return f"Creating .venv with Python {platform.python_version()}."
        found, own = answer(self._python, "-c", _WHO), f"{version(sys.version_info)} {sys.base_prefix}"
        if not found:
            return f"Creating .venv again with Python {platform.python_version()}: the old one does not run."
        if found != own:
            return f"Creating .venv again: it belongs to Python {found.replace(' ', ' in ')}, this is {own}."
        built = read(self._built)
        if self._asked and built and built != self._asked:
            return f"Creating .venv again: it holds PyTorch for {built}, TORCHLOOP_TORCH is {self._asked}."
        return ""

    def _create(self) -> None:
        base = Path(sys.executable)
        if sys.prefix != sys.base_prefix:  # this is .venv's own interpreter, or that of another one
            base = Path(sys.base_prefix, "bin", f"python{version(sys.version_info)}")
        made = subprocess.run(
            [base, "-m", "venv", "--clear", self._folder], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise SetUpError(f"{base} cannot create .venv:\n{made.stdout}{made.stderr}")

    def _install_locks(self, locks: Sequence[str]) -> None:
        build = self._asked or read(self._built) or ("cuda" if sys.platform == "linux" and has_driver() else "cpu")
        say(f"Installing {' and '.join(locks)}: {expected(locks, build)}.")
        if sys.platform == "linux":
            if self._asked:
                say(f"PyTorch's build for {build}, as TORCHLOOP_TORCH says.")
            elif not read(self._built):
                say(_REASONS[build])
            if build == "cpu" and not self._install_for_cpu():
                build = "cuda"
        words = [word for lock in locks for word in ("--requirement", str(self._root / lock))]
        if sys.platform == "linux" and build == "cuda":  # pip prefers a build for CPUs in its folders of wheels
            words.append(f"torch!={self._pins()['torch']}+cpu")
        self._install(*words)
        self._built.write_text(build)

    def _install_for_cpu(self) -> bool:
        """Install PyTorch's build for CPUs. False if it cannot be fetched and the user did not insist on it.

        The configured index and folders of wheels are asked first, PyTorch's own index only if they have no such build.
        """
        pins = self._pins()
        torch, torchvision = f"torch=={pins['torch']}+cpu", f"torchvision=={pins['torchvision']}"
        if not self._pip_install("--no-deps", torch):
            return True
        index = tomllib.loads((self._root / "pyproject.toml").read_text())["tool"]["torchloop"]["cpu-wheels"]
        patience = ("--retries", "1", "--timeout", "15")
        failure = self._pip_install("--no-deps", *patience, "--index-url", index, torch, torchvision)
        if not failure:
            return True
        if self._asked:
            raise SetUpError(f"{failure}\nPyTorch's build for CPUs is neither in pip's index nor at {index}.")
        say(f"PyTorch's build for CPUs cannot be fetched from {index}: the one for CUDA is taken, about 3 GB.")
        return False

    def _pins(self) -> dict[str, str]:
        """The locked versions of torch and torchvision."""
        lock = (self._root / "requirements.lock").read_text()
        return dict(re.findall(r"^(torch|torchvision)==(\S+)$", lock, re.MULTILINE))

    def _install(self, *words: str) -> None:
        if failure := self._pip_install(*words):
            raise SetUpError(f"{failure}\npip could not install this; the next call goes on from here.")

    def _pip_install(self, *words: str) -> str:
        """Run `pip install`: its own output on a terminal, else a line every 15 seconds. Return "", or why it failed.

        Without compiling: Python compiles what it imports, which is a fraction of what is installed.
        """
        command = [
            str(self._python),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--no-compile",
        ]
        command += words
        if sys.stdout.isatty():
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            return failed(done.stderr) if done.returncode else ""
        with subprocess.Popen(
            [*command, "--progress-bar", "off"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            try:
                output = self._progress.follow(process.stdout)
            except KeyboardInterrupt:
                process.kill()
                process.wait()
                raise
        return failed(output) if process.returncode else ""

    def _stamp(self, name: str) -> Path:
        return self._folder / f"ready-{name.removesuffix('.lock')}"

    def _digest(self, name: str) -> str:
        return hashlib.sha256((self._root / name).read_bytes()).hexdigest()


def expected(locks: Sequence[str], build: str) -> str:
    """A rough size of the download: measured for CPUs on Linux x86_64, estimated for CUDA."""
    size = 380 if build == "cpu" else 3000
    return f"about {size + (130 if len(locks) > 1 else 0)} MB to download, one to three minutes with a fast network"


class Progress:
    """How far pip is, read from its output and printed every `every_s` seconds, for logs and pipes."""

    def __init__(self, every_s: float = _REPORT_EVERY_S) -> None:
        self._every_s = every_s
        self._started = time.monotonic()
        self._packages = 0
        self._mib = 0.0
        self._stage = ""

    def follow(self, lines: Iterable[str]) -> str:
        """Read the output of one call of pip to its end and return it."""
        done = threading.Event()
        self._stage = "fetching"
        threading.Thread(target=self._report, args=(done,), daemon=True).start()
        taken = []
        for line in lines:
            self.note(line)
            taken.append(line)
        done.set()
        return "".join(taken)

    def _report(self, done: threading.Event) -> None:
        while not done.wait(self._every_s):
            say(f"  {time.monotonic() - self._started:.0f} s: {self}")

    def note(self, line: str) -> None:
        """Take one line of pip's output into account."""
        self._packages += line.startswith(("Collecting ", "Processing "))
        if size := re.search(r"^\s+Downloading .* \(([0-9.]+) ([kMG]B)\)", line):
            self._mib += float(size[1]) * _MIB[size[2]]
        if line.startswith("Installing collected packages"):
            self._stage = "installing"

    def __str__(self) -> str:
        return f"{self._stage}; {self._packages} packages, {self._mib:.0f} MB downloaded"


def has_driver() -> bool:
    """Whether the NVIDIA driver is loaded."""
    return any(Path(path).exists() for path in _DRIVER)


def failed(output: str) -> str:
    """The last lines of pip's output, without its warnings."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("WARNING")]
    return "\n".join(lines[-10:]) or "pip failed without a word"


def answer(*command: str | Path) -> str:
    """What a command prints; "" if it cannot be run or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def read(path: Path) -> str:
    """The text of a file; "" if it is missing."""
    try:
        return path.read_text()
    except OSError:
        return ""


def version(info: Sequence[object]) -> str:
    """3.11 and the like."""
    return f"{info[0]}.{info[1]}"


def say(line: str) -> None:
    """Print a line now, also into a pipe."""
    print(line, flush=True)  # noqa: T201 - a command line


if __name__ == "__main__":
    sys.exit(main())
