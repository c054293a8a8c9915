"""Tests of NAME: run `python -m pytest` in the project folder."""

from pathlib import Path

import numpy as np

# isort: split
from models.catalog import specs
from models.outputs import description
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


def test_a_prediction_has_the_label_of_the_largest_probability() -> None:
    rows = np.array([[0.25, 0.75]], dtype=np.float32)
    prediction = {"label": "vertical", "probability": 0.75}
    describe = description(specs()["NAME"], artifacts={})
    assert describe(rows) == [prediction]
