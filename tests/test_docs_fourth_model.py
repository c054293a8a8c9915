"""A fourth model is two new files and no changed one: docs/adding-a-model.md, done as it says."""

import json
from pathlib import Path

import pytest

from tests.documents import blocks, copy_of_the_checkout, do
from tests.fakes import ROOT

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "adding-a-model.md"


def test_a_fourth_model_is_trained_served_and_tested_as_two_new_files(tmp_path: Path) -> None:
    assert [block.file for block in blocks(PAGE) if block.file] == ["models/iris.py", "training/iris.py"]
    copy = copy_of_the_checkout(tmp_path, PAGE)
    do(PAGE, copy)
    record = json.loads((copy / "models" / "pretrained" / "iris.json").read_text())
    assert record["metrics"]["accuracy"] > 0.9
