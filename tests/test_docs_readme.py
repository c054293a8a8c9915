"""Run the commands of the README, and compare its settings and file tree with the code."""

import re
from pathlib import Path

import pytest

from service.settings import Settings
from tests import documents
from tests.fakes import ROOT

README = documents.README.read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
_ROW = re.compile(r"^(\| `TORCHLOOP_(\w+)` \|.*)$", re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.slow
def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    """It predicts, it trains, promotes and rolls back, it learns from corrections, and it draws a plot."""
    copy = documents.copy_of_the_checkout(tmp_path, documents.README)
    outputs = documents.do(documents.README, copy)
    assert "".join(outputs).count('"predictions":[{') == 4
    assert "".join(outputs).count('"label":7') == 3
    (loop,) = [output for output in outputs if "event: progress" in output]
    assert '"state":"succeeded"' in loop
    assert '"decision":"promoted"' in loop
    assert loop.endswith('{"model":"classifier","live":1,"previous":2,"waiting_for":[]}')
    (learnt,) = [output for output in outputs if "trained:" in output]
    said = [re.sub(r"'id': '[^']*', ", "", line) for line in learnt.splitlines()[:4]]
    assert said == [
        "answered: {'version': 2, 'label': 2}",
        "trained: {'version': 3, 'dataset': 'digits@2'}",
        "trial: promoted",
        "answered: {'version': 3, 'label': 1}",
    ]
    assert (copy / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_every_make_target_in_the_readme_exists() -> None:
    for target in set(re.findall(r"`make (\w+)", README)):
        assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE), target


def test_the_table_of_settings_is_complete_and_true() -> None:
    rows, most_used = ({name: row for row, name in _ROW.findall(page)} for page in (SETTINGS, README))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    assert most_used
    assert most_used.items() <= rows.items()
    for name, row in rows.items():
        default = row.split("|")[2]
        value = getattr(Settings(), name.lower())
        assert default.strip(" `") == (str(value) if value not in {(), "", None} else "")


def test_the_file_tree_names_what_is_there() -> None:
    tree = README.split("## Files")[1].split("```")[1]
    folders = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert {"models", "training", "service", "tests"} <= folders


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 200
