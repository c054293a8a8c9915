"""The cards of the shipped checkpoints."""

from pathlib import Path

import pytest

from models.catalog import PRETRAINED
from tests.fakes import ROOT
from training.card import write_card
from training.recipe import recipes

NAMES = [name for name in recipes() if (PRETRAINED / f"{name}.pt").exists()]


@pytest.mark.parametrize("name", ["regressor", "classifier"])
def test_the_kept_card_is_what_the_checkpoint_gives_now(name: str, tmp_path: Path) -> None:
    written = write_card(name, Path("nowhere"), tmp_path)
    assert written.read_text() == (ROOT / "docs" / "models" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_checkpoint_has_a_card_with_its_command_and_a_small_picture(name: str) -> None:
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text()
    assert f"python -m training {name}" in card
    assert f"]({name}.png)" in card
    assert "## What it is bad at" in card
    assert (ROOT / "docs" / "models" / f"{name}.png").stat().st_size < 100_000
