"""What the README tells a newcomer to type is run here, and what it says of settings and files is compared."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from service.config import Settings
from tests.fakes import ROOT, running_server

README = (ROOT / "README.md").read_text()
COMMANDS = [block.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_curl_in_the_readme_answers() -> None:
    curls = [
        line for block in COMMANDS for line in block.splitlines() if line.startswith("curl") and "/predict" in line
    ]
    assert len(curls) >= 4
    with running_server({}) as url:
        for line in curls:
            command = line.replace("http://127.0.0.1:8000", url).replace("curl", "curl --fail --silent --show-error", 1)
            done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S602
            assert done.returncode == 0, (line, done.stderr)
            assert '"predictions":[{' in done.stdout
            assert "seven.png" not in line or done.stdout.count('"label":7') == line.count("seven.png")


def test_the_loop_of_the_readme_trains_promotes_and_rolls_back() -> None:
    (block,) = [block for block in COMMANDS if "/train" in block]
    with running_server({"TORCHLOOP_WORKER": "embedded"}) as url:
        script = block.replace("http://127.0.0.1:8000", url)
        done = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False)
        live = httpx.get(f"{url}/models/classifier").json()["live"]
    assert done.returncode == 0, done.stderr
    assert "event: progress" in done.stdout
    assert '"state":"succeeded"' in done.stdout
    assert '"decision":"promoted"' in done.stdout
    assert done.stdout.endswith('{"model":"classifier","live":1,"previous":2}')
    assert live == 1


@pytest.mark.skipif(not (ROOT / ".venv" / "ready").exists(), reason="make's own environment is not set up")
def test_the_training_command_of_the_readme_writes_its_plot(tmp_path: Path) -> None:
    (line,) = [line for block in COMMANDS for line in block.splitlines() if line.startswith("make train")]
    command = line.replace("fit.png", f"{tmp_path}/fit.png").replace("--epochs", f"--store {tmp_path} --epochs")
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_every_make_target_in_the_readme_exists() -> None:
    for target in set(re.findall(r"`make (\w+)", README)):
        assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE), target


def test_the_table_of_settings_is_complete_and_true() -> None:
    rows = dict(re.findall(r"^\| `TORCHLOOP_(\w+)` \|(.*?)\|", README, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, default in rows.items():
        value = getattr(Settings(), name.lower())
        assert default.strip(" `") == (str(value) if value not in {(), ""} else "")


def test_the_file_tree_names_what_is_there() -> None:
    tree = README.split("## Files")[1].split("```")[1]
    folders = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert {"models", "training", "service", "tests"} <= folders


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 200
