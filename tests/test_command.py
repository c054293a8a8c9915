"""The command `torchloop`, also as installed from the wheel: no checkout, and a folder elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from service import command
from service.client import __main__ as client
from tests.fakes import ROOT, running_server


def _wheel(source: Path, folder: Path) -> Path:
    """The wheel of a project, built offline with this environment's setuptools, from a copy."""
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*words, "--wheel-dir", folder, source], check=True, cwd=folder, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheels are built from: a build writes into its folder."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("models", "training", "service", "client"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _wheel(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel; its dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    words: list[str | Path] = ["install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel]
    subprocess.run([*pip, *words], check=True, capture_output=True)
    return folder / "bin"


def _run(*words: str | Path, folder: Path) -> str:
    """What a command prints that is called with no settings, in a folder that is no checkout."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_serves_and_predicts_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    torchloop = installed / "torchloop"
    seven = tmp_path / "seven.png"
    shutil.copy(ROOT / "models" / "pretrained" / "seven.png", seven)
    assert _run(torchloop, "--version", folder=tmp_path) == f"torchloop {version('torchloop')}\n"
    with running_server({}, tmp_path, [torchloop, "serve"]) as url:
        assert _run(torchloop, "predict", "mnist", seven, "--url", url, folder=tmp_path).split()[-2] == "7"
        assert "<title>" in httpx.get(url).text


@pytest.mark.slow
def test_the_wheel_holds_the_three_packages_and_all_files_of_theirs(wheel: Path) -> None:
    tracked = {
        str(path.relative_to(ROOT))
        for package in ("models", "training", "service")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == tracked
    assert held >= {"models/py.typed", "service/py.typed", "training/py.typed"}  # their annotations count, PEP 561


@pytest.mark.slow
def test_the_client_alone_is_a_wheel_that_needs_neither_torch_nor_fastapi(checkout: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(_wheel(checkout / "client", tmp_path)) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    modules = {path.name for path in (ROOT / "service" / "client").glob("*.py")}
    assert held == {f"service/client/{name}" for name in {*modules, "py.typed"}}
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert needed == ["Requires-Dist: httpx>=0.28", "Requires-Dist: rich>=14"]


@pytest.mark.many
@pytest.mark.parametrize("words", [["predict", "--help"], ["jobs", "--help"], ["--version"], ["--help"]])
def test_client_commands_load_neither_torch_nor_fastapi(words: list[str]) -> None:
    code = (
        "import sys, contextlib; from service.command import main\n"
        f"with contextlib.suppress(SystemExit): main({words!r})\n"
        "print('loaded', *sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(said.split("loaded ")[-1].split())
    assert not {"torch", "fastapi", "starlette", "sqlalchemy", "numpy", "training"} & loaded


@pytest.mark.parametrize("verb", [verb for verbs in command.VERBS.values() for verb in verbs])
def test_each_command_has_a_help_page_that_names_it(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: torchloop {verb}" in capsys.readouterr().out


def test_each_command_of_the_client_is_one_of_torchloop(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        client.main(["--help"])
    found = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert "events" in found
    assert [verb for verb in found if not any(verb in verbs for verbs in command.VERBS.values())] == []


def test_help_lists_every_command_and_an_unknown_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {verb} " in said for verbs in command.VERBS.values() for verb in verbs)
    assert command.main(["sreve"]) == 2
    assert "there is no command sreve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--prot", "9000"], "--prot 9000 (set TORCHLOOP_PORT=VALUE in the environment; --help"),
        (["serve", "--store", "x"], "--store x (set TORCHLOOP_STORE=VALUE in the environment"),
        (["serve", "--workers", "4"], "set TORCHLOOP_WEB_PROCESSES=VALUE"),
        (["serve", "--zzz"], "--zzz (--help of torchloop serve lists the settings)"),
        (["serve", "--port"], "--port: expected one argument"),
        (["worker", "--database-url", "x"], "set TORCHLOOP_DATABASE_URL=VALUE"),
    ],
)
def test_an_unknown_option_names_the_setting(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(words)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("torchloop: ")
    assert len(said.splitlines()) == 1
    assert says in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "TORCHLOOP_PORT: Input should be less than or equal to 65535"),
        (["--port=abc"], "TORCHLOOP_PORT: "),
        (["--host", "0.0.0.0"], "TORCHLOOP_HOST=0.0.0.0 opens the service to the network"),
    ],
)
def test_host_and_port_are_options_that_replace_the_settings(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOST", "PORT", "API_KEYS"):
        monkeypatch.setenv(f"TORCHLOOP_{name}", "")  # restored at the end
    assert command.main(["serve", *words]) == 2
    assert says in capsys.readouterr().err
