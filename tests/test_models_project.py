"""A project folder: a user's own models beside the built-in ones, or instead of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from models import project
from models.catalog import specs
from models.checkpoints.code import code_digest
from models.checkpoints.files import sources_digest
from models.project import Project, ProjectError
from service.settings import for_training
from tests.fakes import ROOT, running_server
from tests.projects import nothing_left

SPEC = """
from functools import partial
import numpy as np
from models.outputs import Value, describe_values, values
from models.spec import Entry, ModelSpec, by_name
from .helpers.summaries import SUMMARY

SPEC = ModelSpec(
    summary=SUMMARY, network=by_name("models.net_of_ours:Doubled"),
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)), postprocess=values,
    describe=describe_values, prediction=Value, example=np.array([[3.0]], dtype=np.float32),
)
"""
NETWORK = """
from models.networks import Perceptron


class Doubled(Perceptron):
    def __init__(self) -> None:
        super().__init__(features=1, outputs=1)
"""
BUILTIN = {"classifier", "mnist", "regressor"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with the model `doubled`, a helper module and a helper package."""
    helpers = tmp_path / "models" / "helpers"
    helpers.mkdir(parents=True)
    (helpers / "__init__.py").touch()
    (helpers / "summaries.py").write_text('SUMMARY = "its own"\n')
    (tmp_path / "models" / "net_of_ours.py").write_text(NETWORK)
    (tmp_path / "models" / "doubled.py").write_text(SPEC)
    return tmp_path


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave nothing of a project behind."""
    with nothing_left():
        yield


def python(code: str, folder: Path, **environ: str) -> Any:
    """What the code prints as JSON, in a fresh interpreter with this project folder."""
    words = [sys.executable, "-c", f"import json; {code}"]
    environ = {**os.environ, "TORCHLOOP_PROJECT": str(folder), **environ}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(folder: Path | None, builtin: bool = True) -> str:
    with pytest.raises(ProjectError) as raised:
        Project(folder, builtin).enter()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_its_models_and_their_helpers_are_found_beside_the_built_in_ones(folder: Path) -> None:
    found = specs(Project(folder))
    assert found.keys() == BUILTIN | {"doubled"}
    assert found["doubled"].summary == "its own"
    assert type(found["doubled"].network()).__name__ == "Doubled"


def test_without_the_built_in_models_only_its_own_are_offered(folder: Path) -> None:
    assert specs(Project(folder, builtin=False)).keys() == {"doubled"}


def test_without_the_built_in_models_it_may_reuse_their_names(folder: Path) -> None:
    (folder / "models" / "doubled.py").rename(folder / "models" / "mnist.py")
    code = "from models.catalog import specs; print(json.dumps({n: s.summary for n, s in specs().items()}))"
    assert python(code, folder, TORCHLOOP_BUILTIN="off") == {"mnist": "its own"}
    assert refused(folder) == (
        "models/mnist.py in the project folder has the name of a built-in model: rename it, or leave the built-in "
        "models out with TORCHLOOP_BUILTIN=off"
    )


@pytest.mark.parametrize("builtin", [True, False])
@pytest.mark.parametrize("place", ["models/spec.py", "models/checkpoints/x.py", "training/loop.py"])
def test_a_file_with_the_name_of_a_module_of_ours_is_refused(place: str, builtin: bool, folder: Path) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).touch()
    package, name = place.removesuffix(".py").split("/")[:2]
    assert refused(folder, builtin) == (
        f"{package}/{name} in the project folder has the name of a module of Torchloop, which it must not replace: "
        "rename it"
    )


def test_a_folder_of_data_with_the_name_of_a_package_of_ours_is_no_clash(folder: Path) -> None:
    (folder / "models" / "checkpoints").mkdir()
    (folder / "models" / "checkpoints" / "weights.pt").touch()
    assert "doubled" in specs(Project(folder, builtin=False))


def test_a_path_that_is_no_project_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert refused(path) == (
            f"TORCHLOOP_PROJECT: {path} is no project folder: name a folder that holds models/ and training/"
        )
    assert refused(None, builtin=False).startswith("TORCHLOOP_BUILTIN=off leaves no models")


def test_a_bad_value_of_builtin_is_named() -> None:
    with pytest.raises(ProjectError, match=r"^TORCHLOOP_BUILTIN=no: write on or off$"):
        project.of({"TORCHLOOP_BUILTIN": "no"})
    assert project.of({"TORCHLOOP_PROJECT": " ", "TORCHLOOP_BUILTIN": ""}) == Project()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("nosuchdistribution>=1", "nosuchdistribution is not installed"),
        ("numpy>=1,<1.5  # a comment", f"numpy {version('numpy')} is installed, <1.5,>=1 is needed"),
        ("-r more.txt", "notthereeither is not installed"),
        ("numpy==0.1 --hash=sha256:00", f"numpy {version('numpy')} is installed, ==0.1 is needed"),
    ],
)
def test_a_requirement_that_is_not_met_is_named_and_nothing_is_installed(line: str, fault: str, folder: Path) -> None:
    (folder / "more.txt").write_text("notthereeither\n")
    (folder / "requirements.txt").write_text(f"numpy\n{line}\n")
    assert refused(folder) == (
        f"requirements.txt of the project: {fault}. Install with: pip install -r {folder / 'requirements.txt'}"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "# numpy==0.1\n", "torch\nnumpy>=2\n", "--index-url https://example.org\n", "-e .\n", "./here\n"),
        *("nosuchdistribution; python_version < '3'\n", "git+https://example.org/x.git\n", "numpy >= 1, \\\n  < 99\n"),
    ],
)
def test_requirements_that_are_met_or_no_distributions_are_not_in_the_way(text: str, folder: Path) -> None:
    (folder / "requirements.txt").write_text(text)
    Project(folder).enter()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"numpy>>1\n", "'numpy>>1' is no requirement: correct it"), (b"\xff\n", "cannot be read: save it as UTF-8 text")],
)
def test_a_damaged_requirements_file_is_named(content: bytes, words: str, folder: Path) -> None:
    (folder / "requirements.txt").write_bytes(content)
    assert refused(folder) == f"requirements.txt of the project {words}".replace("project '", "project: '")


@pytest.mark.parametrize(
    "words",
    [
        ["service"],
        ["service.worker"],
        ["service.register", "mnist", "x.pt"],
        ["training", "mnist"],
        ["service.command", "check"],
        ["service.command", "evaluate", "mnist", "x.pt"],
    ],
)
@pytest.mark.slow
def test_every_process_refuses_a_project_that_cannot_be_used(words: list[str], folder: Path) -> None:
    (folder / "requirements.txt").write_text("nosuchdistribution\n")
    environ = {**os.environ, "TORCHLOOP_PROJECT": str(folder), "TORCHLOOP_STORE": str(folder / "store")}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "requirements.txt of the project: nosuchdistribution is not installed" in line


def test_one_broken_file_of_a_project_is_left_aside(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "models" / "broken.py").write_text("SPEC = nosuchname\n")
    assert specs(Project(folder)).keys() == BUILTIN | {"doubled"}
    (message,) = caplog.messages
    assert message == (
        "left aside: models/broken.py: line 1: NameError: name 'nosuchname' is not defined; torchloop check broken "
        "prints the traceback"
    )


def test_the_checkout_as_project_folder_changes_nothing() -> None:
    assert specs(Project(ROOT)).keys() == specs().keys()
    assert specs(Project(ROOT, builtin=False)).keys() == specs().keys()


@pytest.mark.slow
def test_the_key_of_cached_files_changes_with_the_project(folder: Path) -> None:
    seen = [sources_digest("models", "training")]
    for of in (Project(folder), Project(folder, builtin=False)):
        of.mount("models")
        seen.append(sources_digest("models", "training"))
    assert len(set(seen)) == 3
    code = "from models.catalog import specs; from models.checkpoints.files import sources_digest as digest\n"
    code += "specs(); print(json.dumps(digest('models')))"
    before = python(code, folder)
    (folder / "models" / "helpers" / "summaries.py").write_text('SUMMARY = "changed"\n')
    assert python(code, folder) != before


@pytest.mark.parametrize("file", ["doubled.py", "net_of_ours.py", "helpers/summaries.py"])
def test_the_key_of_an_export_covers_the_files_of_the_project_that_the_model_imports(file: str, folder: Path) -> None:
    (folder / "models" / "other.py").touch()
    spec = specs(Project(folder))["doubled"]
    before = code_digest("doubled", spec)
    (folder / "models" / "other.py").write_text("# changed\n")
    assert code_digest("doubled", spec) == before
    with (folder / "models" / file).open("a") as source:
        source.write("# changed\n")
    assert code_digest("doubled", spec) != before


def test_the_option_is_taken_out_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--project", "a", "x", "y"], ["x", "--project=a", "y"], ["x", "y", "--project", "a"]):
        monkeypatch.delenv("TORCHLOOP_PROJECT", raising=False)
        assert project.take_option(words) == ["x", "y"]
        assert os.environ["TORCHLOOP_PROJECT"] == str(tmp_path / "a")
    with pytest.raises(ProjectError, match="--project needs a folder: --project DIR"):
        project.take_option(["serve", "--project"])


def test_the_torch_subprocess_gets_an_absolute_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert for_training({"TORCHLOOP_PROJECT": "a"}) == {"TORCHLOOP_PROJECT": str(tmp_path / "a")}
    assert for_training({"TORCHLOOP_PROJECT": ""}) == {"TORCHLOOP_PROJECT": ""}


@pytest.mark.slow
def test_a_service_started_in_a_project_folder_imports_our_packages_there_too(folder: Path, tmp_path: Path) -> None:
    """Its models/ and service/ would come first in the path of a process of `python -m`."""
    for name in ("models", "service"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").write_text("raise AssertionError\n")
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; sys.argv[0] = 'torchloop'\n"
    code += "from service.command import main; sys.exit(main(['serve', '--project', '.']))"
    settings = {"TORCHLOOP_STORE": str(tmp_path / "store"), "TORCHLOOP_WEB_PROCESSES": "2"}
    with running_server(settings, folder, [sys.executable, "-P", "-c", code]) as url:
        import httpx  # noqa: PLC0415

        assert "doubled" in {model["name"] for model in httpx.get(f"{url}/models").json()["models"]}
