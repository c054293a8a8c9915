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
    assert outcome.record.metrics["mse"] < 0.02


def test_a_series_has_at_least_two_steps() -> None:
    code = Coder(specs()["NAME"], artifacts={})
    assert code({"series": [1, 2, 3]})["series"].tolist() == [1, 2, 3]
    with pytest.raises(InvalidInput, match="send 2 to 1000"):
        code({"series": [1]})
