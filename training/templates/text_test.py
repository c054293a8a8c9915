"""Tests of NAME: run `python -m pytest` in the project folder."""

from pathlib import Path

import pytest

# isort: split
from models.catalog import specs
from models.coding import Coder
from models.errors import InvalidInput
from models.project import use
from training.recipe import recipes
from training.run import run

use(Path(__file__).parents[1])


def test_it_learns_the_rule(tmp_path: Path) -> None:
    recipe = recipes()["NAME"]
    outcome = run(
        "NAME",
        recipe,
        recipe.config(),
        data=tmp_path,
        folder=tmp_path,
        report=lambda _: None,
        command="a test",
    )
    assert outcome.record.metrics["accuracy"] > 0.9


def test_words_are_looked_up_in_the_vocabulary_of_the_version() -> None:
    artifacts = {"vocabulary": {"good": 1, "film": 2}}
    code = Coder(specs()["NAME"], artifacts)
    assert code({"text": "Good, good FILM; unheard"})["words"].tolist() == [1, 1, 2, 0]
    with pytest.raises(InvalidInput, match="send a sentence"):
        code({"text": "?!"})
