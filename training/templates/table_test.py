"""Tests of NAME: run `python -m pytest` in the project folder."""

from pathlib import Path

import numpy as np

# isort: split
from models.catalog import specs
from models.coding import Coder
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
    assert outcome.record.metrics["accuracy"] > 0.85  # some distances are missing


def test_a_missing_distance_is_nan_and_a_category_its_position() -> None:
    code = Coder(specs()["NAME"], artifacts={})
    arrays = code({"carrier": "air", "weight": 2})
    assert arrays["carrier"].tolist() == 2
    assert np.isnan(arrays["distance"])
