"""environment.py and the Makefile set up .venv from the lock files. No package index is used."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from environment import Progress, has_driver
from tests.fakes import ROOT, started_before

pytestmark = pytest.mark.slow
_LOCK = "torch==2.13.0\ntorchvision==0.28.0\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout with an environment, and what its set-up said. It began with a .venv of another interpreter."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "environment.py", root)
    (root / "pyproject.toml").write_text(f'[tool.torchloop]\ncpu-wheels = "file://{root}/unreachable"\n')
    (root / "requirements.lock").write_text(_LOCK)
    (root / "requirements-dev.lock").write_text("pytest==9.2.0\n")
    for name, version in (("torch", "2.13.0+cpu"), ("torch", "2.13.0"), ("torchvision", "0.28.0"), ("pytest", "9.2.0")):
        _add_wheel(root, name, version)
    other = root / ".venv" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 3.10 /elsewhere\n")
    other.chmod(0o755)
    done = _set_up(root, torch="cpu")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


@pytest.fixture
def root(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that checkout for one test."""
    shutil.copytree(made[0], tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def _add_wheel(root: Path, name: str, version: str) -> None:
    """Add an empty wheel to the folder that pip installs from."""
    (root / "wheels").mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(root / "wheels" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _set_up(root: Path, *words: str, torch: str = "") -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCHLOOP_"))}
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{root}/wheels"}
    return subprocess.run(
        [sys.executable, root / "environment.py", "--no-command", *words],
        env={**kept, **own, "TORCHLOOP_TORCH": torch},
        capture_output=True,
        text=True,
        check=False,
    )


def _installed(root: Path) -> set[str]:
    return {path.name.removesuffix(".dist-info") for path in root.glob(".venv/lib/*/site-packages/*.dist-info")}


def test_an_environment_of_another_interpreter_is_rebuilt_and_said(made: tuple[Path, str]) -> None:
    root, said = made
    assert "it belongs to Python 3.10 in /elsewhere, this is 3." in said
    assert "about 380 MB" in said
    assert "torchvision-0.28.0" in _installed(root)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build only")
def test_a_build_for_cpus_in_a_folder_of_wheels_is_taken_before_any_index(made: tuple[Path, str]) -> None:
    root, said = made
    assert "PyTorch's build for cpu, as TORCHLOOP_TORCH says." in said
    assert "torch-2.13.0+cpu" in _installed(root)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build only")
def test_a_build_for_cpus_in_a_folder_of_wheels_is_not_taken_for_cuda(root: Path) -> None:
    done = _set_up(root, torch="cuda")
    assert done.returncode == 0, done.stderr
    assert "it holds PyTorch for cpu, TORCHLOOP_TORCH is cuda." in done.stdout
    assert "torch-2.13.0" in _installed(root)
    assert (root / ".venv" / "torch").read_text() == "cuda"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one build only")
def test_with_a_build_for_cpus_alone_the_set_up_for_cuda_fails_and_says_so(root: Path) -> None:
    (root / "wheels" / "torch-2.13.0-py3-none-any.whl").unlink()
    done = _set_up(root, torch="cuda")
    assert done.returncode == 1
    assert "torch!=2.13.0+cpu" in done.stderr


def test_an_environment_that_is_up_to_date_is_left_alone(root: Path) -> None:
    done = _set_up(root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_development_adds_its_own_packages_only(root: Path) -> None:
    before = _installed(root)
    assert _set_up(root, "--dev").returncode == 0
    assert _installed(root) - before == {"pytest-9.2.0"}
    assert _set_up(root).stdout == ""


def test_a_changed_lock_file_updates_the_environment(root: Path) -> None:
    _add_wheel(root, "torchvision", "0.28.1")
    (root / "requirements.lock").write_text(_LOCK.replace("0.28.0", "0.28.1"))
    done = _set_up(root)
    assert "Creating" not in done.stdout
    assert "torchvision-0.28.1" in _installed(root)


@pytest.mark.skipif(sys.platform != "linux" or has_driver(), reason="only Linux without an NVIDIA GPU needs the choice")
def test_without_a_build_for_cpus_the_other_is_taken_and_said_unless_cpu_was_asked_for(root: Path) -> None:
    _add_wheel(root, "torch", "2.13.1")
    (root / "requirements.lock").write_text(_LOCK.replace("2.13.0", "2.13.1"))
    refused = _set_up(root, torch="cpu")
    assert refused.returncode == 1
    assert "PyTorch's build for CPUs is neither in pip's index nor at file://" in refused.stderr
    taken = _set_up(root)
    assert taken.returncode == 0, taken.stderr
    assert "the one for CUDA is taken" in taken.stdout
    assert "torch-2.13.1" in _installed(root)
    assert (root / ".venv" / "torch").read_text() == "cuda"


def test_a_package_that_cannot_be_installed_is_named(root: Path) -> None:
    (root / "requirements.lock").write_text(f"{_LOCK}nosuchthing==1.0\n")
    done = _set_up(root)
    assert done.returncode == 1
    assert "nosuchthing==1.0" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_torch_build_is_rejected(root: Path) -> None:
    done = _set_up(root, torch="gpu")
    assert done.returncode == 2
    assert "TORCHLOOP_TORCH=gpu: it is cpu or cuda, or not set" in done.stderr


def test_progress_counts_packages_and_megabytes() -> None:
    progress = Progress()
    output = [
        "Collecting numpy==2.4.6\n",
        "  Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl (16.6 MB)\n",
        "Processing /wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl\n",
        "Collecting nvidia-cublas\n",
        "  Downloading nvidia_cublas-13.0-py3-none-manylinux_2_27_x86_64.whl (0.5 GB)\n",
    ]
    assert progress.follow(output) == "".join(output)
    assert str(progress) == "fetching; 3 packages, 529 MB downloaded"
    progress.note("Installing collected packages: numpy, torch\n")
    assert str(progress).startswith("installing; ")


def _python(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def _make(path: str) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "MAKEFLAGS"}}
    make = shutil.which("make")
    assert make is not None
    words = [make, "--dry-run", "BIN=nowhere", "serve"]
    return subprocess.run(words, cwd=ROOT, env={**environ, "PATH": path}, capture_output=True, text=True, check=False)


def test_make_passes_over_an_interpreter_that_does_not_run(tmp_path: Path) -> None:
    _python(tmp_path, "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    _python(tmp_path, "python3.12", "exit 1  # too old, or without venv")
    _python(tmp_path, "python3.13", "exit 0")
    assert "python3.13 environment.py" in _make(str(tmp_path)).stdout


def test_make_says_what_to_install_if_no_interpreter_will_do(tmp_path: Path) -> None:
    done = _make(str(tmp_path))
    assert done.returncode == 2
    assert "Torchloop needs Python 3.11 or newer with its venv module, and finds none: install it" in done.stderr


@pytest.mark.parametrize("older", [(3, 6, 9), (3, 9, 18), (3, 10, 13)])
def test_an_older_python_is_refused_with_the_way_out(older: tuple[int, int, int]) -> None:
    code = f"import runpy, sys; sys.version_info = {older}; runpy.run_path('environment.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"Torchloop needs Python 3\.11 .* is 3\.{older[1]}: make PYTHON=.*\n", done.stderr)


@pytest.mark.parametrize("seed", range(3))
def test_signals_during_the_set_up_end_it_and_pip(seed: int, root: Path) -> None:
    slow = root / "slow"
    slow.mkdir()
    waits = "import sys, time; print('waits', flush=True); time.sleep(600)"
    (slow / "setup.py").write_text(waits)
    (root / "requirements.lock").write_text(f"{_LOCK}{slow}\n")
    words: list[str | Path] = [sys.executable, root / "environment.py", "--no-command"]
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{root}/wheels"}
    environ = {**os.environ, **own, "PIP_NO_BUILD_ISOLATION": "0", "TORCHLOOP_TORCH": ""}
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Installing requirements.lock")
        generator = random.Random(seed)  # noqa: S311
        for _ in range(generator.randint(1, 20)):
            process.send_signal(generator.choice((signal.SIGINT, signal.SIGTERM)))
        _, errors = process.communicate(timeout=60)  # returns when pip has ended, too
    assert (process.returncode, errors) == (130, "interrupted: the next call goes on from here\n")


@pytest.mark.parametrize("seed", range(2))
def test_signals_to_make_serve_and_all_its_processes_end_them(seed: int, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHLOOP_", "MAKE"))}
    words = ["make", "serve", "SET_UP=true", f"BIN={Path(sys.executable).parent}"]
    store = started_before(tmp_path)
    settings = {"TORCHLOOP_STORE": str(store), "TORCHLOOP_PORT": "0", "TORCHLOOP_WEB_PROCESSES": str(1 + seed)}
    with subprocess.Popen(
        words, cwd=ROOT, env=inherited | settings, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert any("running on" in line for line in process.stderr)
        generator = random.Random(seed)  # noqa: S311
        for _ in range(generator.randint(2, 20)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, generator.choice((signal.SIGINT, signal.SIGTERM)))
        _, log = process.communicate(timeout=120)  # returns when all processes have ended; the bound is for a failure
    assert "Traceback" not in log
    assert "Shutting down" in log


@pytest.mark.parametrize("target", ["serve", "train", "bench"])
def test_make_imports_from_the_checkout_also_with_pythonsafepath(target: str, tmp_path: Path) -> None:
    _python(tmp_path, "python", 'echo "$* safe=$PYTHONSAFEPATH"')
    words = ["make", target, "SET_UP=true", f"BIN={tmp_path}"]
    environ = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    printed = [line for line in done.stdout.splitlines() if not line.startswith("make[")]  # if make runs the tests
    assert len(printed) == 1
    assert printed[0].startswith("-m ")
    assert printed[0].endswith(" safe=")
