"""Files that a run writes, and what remains if writing fails."""

import errno
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.catalog import specs
from models.checkpoints import state_dict
from training import run as running
from training.recipe import Recipe, TrainingError, recipes
from training.run import Outcome, run

REGRESSOR: Recipe[Any] = recipes()["regressor"]


def short_run(folder: Path, file: str | None = None, recipe: Recipe[Any] = REGRESSOR, **values: Any) -> Outcome:
    config = recipe.config(epochs=2, **values)
    return run("regressor", recipe, config, data=folder, folder=folder, file=file, report=lambda _: None, command="")


def test_a_file_that_is_named_is_replaced_with_its_record(tmp_path: Path) -> None:
    short_run(tmp_path, "fit.pt", seed=1)
    second = short_run(tmp_path, "fit.pt", seed=2, hidden=4)
    assert second.path == tmp_path / "fit.pt"
    assert state_dict.load("regressor", specs()["regressor"], second.path)[1] == second.record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "fit.pt"]


def test_runs_named_after_their_digest_replace_no_other(tmp_path: Path) -> None:
    paths = {short_run(tmp_path, seed=seed).path for seed in (1, 2, 3)}
    assert paths == set(tmp_path.glob("*.pt"))
    assert len(paths) == 3


def test_a_place_that_cannot_be_written_is_found_out_before_the_fit(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    (tmp_path / "fit.pt").mkdir()
    with pytest.raises(TrainingError, match="cannot be written") as refused:
        short_run(tmp_path / "taken")
    assert str(tmp_path) not in str(refused.value)
    with pytest.raises(TrainingError, match=r"fit\.pt is a folder"):
        short_run(tmp_path, "fit.pt")


@pytest.mark.parametrize("broken", ["save_weights", "save_record"])
def test_a_full_disk_leaves_the_older_checkpoint_whole(
    broken: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = short_run(tmp_path, "fit.pt", seed=1).record

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, broken, full)
    with pytest.raises(TrainingError, match="No space left on device"):
        short_run(tmp_path, "fit.pt", seed=2)
    assert state_dict.load("regressor", specs()["regressor"], tmp_path / "fit.pt")[1] == older
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "fit.pt"]


def test_figures_that_are_not_finite_are_never_recorded(tmp_path: Path) -> None:
    broken = replace(REGRESSOR, evaluate=lambda _network, _split: {"mse": math.inf})
    with pytest.raises(TrainingError, match="not finite"):
        short_run(tmp_path, recipe=broken)
    assert not list(tmp_path.iterdir())
