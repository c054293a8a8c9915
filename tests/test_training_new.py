"""`torchloop new`: its files pass lint and the contract, train in seconds and serve, as they are written."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models.project import Project
from service import command
from tests.fakes import ROOT, running_server
from tests.projects import trained_and_served
from training import new

TEMPLATES = ROOT / "training" / "templates"
KINDS = ["pictures", "rows", "series", "table", "text"]
LONG = "a_name_of_thirty_characters_xx"


def write(folder: Path, name: str, kind: str) -> int:
    return command.main(["new", name, "--kind", kind, "--project", str(folder)])


def ran(*words: str | Path, folder: Path) -> str:
    """What a command prints to standard output; it must succeed."""
    environ = {**os.environ, "TORCHLOOP_STORE": str(folder / "store"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo `--project` after the test."""
    monkeypatch.setenv("TORCHLOOP_PROJECT", "")


def test_the_kinds_of_the_help_are_those_with_templates(capsys: pytest.CaptureFixture[str]) -> None:
    assert new.kinds() == KINDS
    with pytest.raises(SystemExit):
        command.main(["new", "--help"])
    assert f"{{{','.join(KINDS)}}}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_it_writes_a_pair_of_files_and_a_test(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, "gauge", kind) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written - {"models/gauge_network.py"} == {"models/gauge.py", "training/gauge.py", "tests/test_gauge.py"}
    assert all(
        f"wrote {tmp_path / path}\n" in capsys_line for capsys_line in [capsys.readouterr().out] for path in written
    )
    text = "".join((tmp_path / path).read_text() for path in written)
    assert "NAME" not in text
    assert "templates" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_clean_by_the_rules_of_the_checkout_and_by_those_of_ruff(kind: str, tmp_path: Path) -> None:
    assert write(tmp_path, LONG, kind) == 0
    ruff = Path(sys.executable).parent / "ruff"
    for words in (["check"], ["format", "--check"]):
        ran(ruff, *words, "--no-cache", "--isolated", ".", folder=tmp_path)
        for path, content in new.files(LONG, kind).items():
            command: list[str | Path] = [ruff, *words, "--no-cache", "--stdin-filename", path, "-"]
            done = subprocess.run(command, cwd=ROOT, input=content, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_files_of_all_kinds_pass_the_contract_and_their_own_tests(tmp_path: Path) -> None:
    for kind in KINDS:
        assert write(tmp_path, f"gauge_of_{kind}", kind) == 0
    torchloop = [sys.executable, "-P", "-m", "service.command"]
    said = ran(*torchloop, "check", "--project", tmp_path, folder=tmp_path)
    assert "FAILED" not in said
    assert said.splitlines()[-1] == f"training: {len(KINDS)} checked, 0 with a fault"
    said = ran(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", folder=tmp_path)
    assert f"{2 * len(KINDS)} passed" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_model_of_each_kind_is_served(kind: str, tmp_path: Path) -> None:
    assert write(tmp_path, "gauge", kind) == 0
    with trained_and_served(tmp_path, "gauge", epochs=1) as (_, client):
        (model,) = client.get("/models").json()["models"]
        assert (model["name"], model["live"], model["backend"]) == ("gauge", 1, "onnxruntime")
        example = client.get("/models/gauge/example").json()
        found = client.post("/predict/gauge", json=example).json()["predictions"]
        assert len(found) == len(example["inputs"])
        assert all(set(row) in ({"label", "probability"}, {"value"}) for row in found)


@pytest.mark.slow
def test_new_models_are_trained_promoted_and_served_from_their_folder(tmp_path: Path) -> None:
    """By the real processes: offline training, web process, torch subprocess, worker."""
    assert write(tmp_path, "gauge", "rows") == 0
    project = {"TORCHLOOP_PROJECT": str(tmp_path), "TORCHLOOP_BUILTIN": "off"}
    torchloop = [sys.executable, "-P", "-m", "service.command"]
    checkpoint = tmp_path / "pretrained" / "gauge.pt"
    ran(*torchloop, "train", "--project", tmp_path, "gauge", "--output", checkpoint, folder=tmp_path)
    settings = {**project, "TORCHLOOP_STORE": str(tmp_path / "store"), "TORCHLOOP_WORKER": "embedded"}
    with running_server(settings) as url:
        (model,) = httpx.get(f"{url}/models").json()["models"]
        assert (model["name"], model["live"], model["backend"]) == ("gauge", 1, "onnxruntime")
        found = httpx.post(f"{url}/predict/gauge", json=model["example"]).json()["predictions"]
        assert [row["label"] for row in found] == ["small", "large"]
        order = {"model": "gauge", "config": {"epochs": 20}, "promote": "always"}
        job = httpx.post(f"{url}/train", json=order).json()
        assert '"succeeded"' in httpx.get(f"{url}/jobs/{job['id']}/events", timeout=120).text
        assert httpx.get(f"{url}/jobs/{job['id']}").json()["version"] == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, "use lower-case letters, digits and _") for name in ("Gauge", "my-model", "1st", "", "a b", "x" * 65)),
        ("import", "import is a word of Python"),
        *(
            (name, f"{name} is the name of a model or module that exists")
            for name in ("mnist", "spec", "loop", "stats")
        ),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(tmp_path, name, "rows") == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["models/gauge.py", "training/gauge.py", "tests/test_gauge.py"])
def test_no_file_is_overwritten(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text("mine")
    assert write(tmp_path, "gauge", "rows") == 1
    assert f"{place} exists already: choose another name, or remove the file" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.rglob("*.py")] == ["mine"]


def test_without_a_project_folder_the_files_are_written_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["new", "gauge"]) == 0
    assert Project(tmp_path).names("models") == {"gauge"}
