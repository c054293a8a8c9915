"""`python -m training compare`: runs that differ in one hyperparameter."""

from pathlib import Path

import pytest
from PIL import Image

from training import __main__ as command
from training.compare import Trial, table, variants
from training.mnist import Config as MnistConfig
from training.recipe import Progress, recipes
from training.regressor import Config
from training.report import plots

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_value_is_fitted_and_has_its_row_and_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "compare regressor --vary optimizer=sgd,momentum,rmsprop,adam --epochs 3 --batch-size 32 --lr 0.01"
    assert command.main([*words.split(), "--plot", str(tmp_path / "curves.png")]) == 0
    head, *rows, plot = capsys.readouterr().out.splitlines()
    assert head.split() == ["optimizer", "final", "loss", "validation", "mse", "seconds"]
    assert [row.split()[0] for row in rows] == ["sgd", "momentum", "rmsprop", "adam"]
    assert plot == f"plot {tmp_path / 'curves.png'}"
    with Image.open(tmp_path / "curves.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20


def test_a_comparison_fits_the_same_as_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["compare", "classifier", "--vary", "lr=0.1,0.2", "--epochs", "2"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    words = ["classifier", "--lr", "0.2", "--epochs", "2", "--store", str(tmp_path)]
    assert command.main(words) == 0
    assert f"validation_accuracy {row[2]}" in capsys.readouterr().out


def test_a_run_that_fails_says_why_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "regressor", "--vary", "lr=0.1,100", "--activation", "tanh", "--epochs", "60"]
    assert command.main(words) == 0
    out = capsys.readouterr().out
    assert "100 failed: the " in out
    assert "lower lr" in out


@pytest.mark.parametrize(
    ("varied", "reason"),
    [
        ("speed=1,2", "there is no hyperparameter 'speed'; there are epochs, batch_size"),
        ("lr=0.1", "name at least two different values, as in --vary lr=0.5,0.25"),
        ("optimizer=adam,adam", "name at least two different values, as in --vary optimizer=sgd,momentum"),
        ("shuffle", "as in --vary shuffle=on,off"),
        ("betas", "as in --vary betas=0.9 0.999,0.8 0.99"),
        ("lr=0.1,1000", "--lr 1000: must be a number > 0 and <= 100"),
        ("shuffle=on,perhaps", "--shuffle perhaps: must be on or off"),
        ("seed=1,2", "seed is also set by its own flag"),
    ],
)
def test_what_cannot_be_varied_names_the_way_out(varied: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["compare", "regressor", "--vary", varied, "--seed", "3"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_any_kind_of_hyperparameter_can_be_varied() -> None:
    _, configs = variants(Config, "batch-size=10,20", {"lr": "0.1"})
    assert [(config.batch_size, config.lr) for config in configs.values()] == [(10, 0.1), (20, 0.1)]
    _, betas = variants(Config, "betas=0.9 0.99,0.8 0.9", {})
    assert [config.betas for config in betas.values()] == [(0.9, 0.99), (0.8, 0.9)]
    _, limits = variants(MnistConfig, "limit=none,100", {}, recipes()["mnist"].presets["champion"])
    assert [(config.limit, config.copies) for config in limits.values()] == [(None, 7), (100, 7)]


def test_the_table_has_a_dash_where_a_run_failed() -> None:
    history = [Progress(epoch=1, epochs=1, step=1, steps=1, loss=0.5)]
    good = Trial(label="a", history=history, metrics={"mse": 0.25}, seconds=1.0)
    assert table("lr", [good, Trial(label="b", failure="it burst", seconds=2.0)]).splitlines() == [
        "lr  final loss  validation mse  seconds",
        "a          0.5            0.25     1.00",
        "b            -               -     2.00",
        "b failed: it burst",
    ]


def test_a_run_of_one_report_is_seen_in_the_plot() -> None:
    only = Progress(epoch=1, epochs=1, step=9, steps=9, loss=0.5, metrics={"mse": 0.4})
    figure = plots.draw_comparison("compared", [Trial(label="a", history=[only])], recipes()["regressor"])
    assert [line.get_marker() for axes in figure.axes for line in axes.lines] == ["o", "o"]
