"""The command line: `python -m training`."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from tests.fakes import ROOT
from training import __main__ as command
from training.flags import command_line, read_config
from training.recipe import Progress, recipes
from training.report import plots
from training.report.console import lines, shown_progress

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = list(recipes())


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which these words are turned down."""
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("name", NAMES)
def test_help_lists_every_hyperparameter_with_default_bounds_and_meaning(
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split("hyperparameters:")[1].split())
    for field, schema in recipes()[name].config.model_json_schema()["properties"].items():
        _, about = text.split(f"--{field.replace('_', '-')}", 1)
        about = about.removeprefix(f", --no-{field.replace('_', '-')}").split(" --")[0]
        assert f"{schema['description']} (default " in about
        assert all(choice in about for choice in schema.get("enum", []))
        assert all(f"{schema[bound]:.10g}" in about for bound in ("minimum", "maximum") if bound in schema)
    assert "TORCHLOOP_DATA" in text


def test_help_lists_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["regressor", "--lr", "1000"], "--lr 1000: must be a number > 0 and <= 100"),
        (["regressor", "--lr", "-1"], "--lr -1: must be a number > 0 and <= 100"),
        (["regressor", "--lr", "nan"], "--lr nan: must be a number > 0 and <= 100"),
        (["regressor", "--epochs", "many"], "--epochs many: must be an integer >= 1 and <= 10000"),
        (
            ["regressor", "--optimizer", "lbfgs"],
            "--optimizer lbfgs: must be one of sgd, momentum, rmsprop, adam, adamw",
        ),
        (["regressor", "--betas", "0.9", "1"], "--betas 0.9 1: must be 2 values, each a number >= 0 and < 1"),
        (["regressor", "--batch-size", "0"], "--batch-size 0: must be an integer >= 1 and <= 65536"),
        (["mnist", "--num-workers", "17"], "--num-workers 17: must be an integer >= 0 and <= 16"),
        (["mnist", "--limit", "0"], "--limit 0: must be an integer >= 1"),
        (["mnist", "--dataset", "Cifar"], "--dataset Cifar: must be one of mnist, digits"),
        (
            ["evaluate", "mnist", str(PRETRAINED / "mnist.pt"), "--dataset", "digits"],
            "--dataset digits: a checkpoint is evaluated on the data that its record names",
        ),
        (["regressor", "--augment"], "unrecognized arguments: --augment"),
        (["regressor", "--dataset", "a@1", "--dataset-file", "."], "--dataset and --dataset-file: give one of the two"),
        (
            ["compare", "mnist", "--vary", "dataset=mnist,digits", "--dataset-file", "."],
            "--vary dataset: all runs would learn your own data",
        ),
        (["regressor", "--epo", "3"], "unrecognized arguments: --epo 3"),
        (["regressor", "--output", "fit.onnx"], "fit.onnx must end in .pt"),
        (["regressor", "--plot", "fit.pdf"], "fit.pdf must end in .png"),
        (["forest"], "invalid choice: 'forest' (choose from"),
        ([], "name a model: classifier, mnist, regressor"),
    ],
)
def test_an_invalid_argument_prints_one_line_and_exits_with_2(
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reason in refused(words, capsys)


def test_every_kind_of_flag_reaches_the_config() -> None:
    words = "mnist --epochs 3 --no-shuffle --lr 1e-2 --betas 0.5 0.6 --augment --limit 70 --dataset digits"
    options = command._parser().parse_args(words.split())
    config = read_config(recipes()["mnist"].config, vars(options))
    assert config.model_dump(exclude_defaults=True) == {
        "epochs": 3,
        "shuffle": False,
        "lr": 0.01,
        "betas": (0.5, 0.6),
        "augment": True,
        "limit": 70,
        "dataset": "digits",
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_command_gives_the_same_config_again(name: str) -> None:
    config = recipes()[name].config(epochs=7, shuffle=False, lr=0.012, betas=(0.1, 0.2), seed=3)
    words = command_line(name, config).split()
    assert words[:4] == ["python", "-m", "training", name]
    options = command._parser().parse_args(words[3:])
    assert read_config(recipes()[name].config, vars(options)) == config


def test_presets_are_in_the_help_and_flags_override_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["mnist", "--help"])
    assert "champion is --epochs" in " ".join(capsys.readouterr().out.split())
    recipe = recipes()["mnist"]
    options = command._parser().parse_args(["mnist", "--preset", "champion", "--epochs", "3"])
    config = read_config(recipe.config, vars(options), recipe.presets["champion"])
    assert config == recipe.config(**{**recipe.presets["champion"], "epochs": 3})
    line = command_line("mnist", config, "champion", recipe.presets["champion"])
    assert line == "python -m training mnist --preset champion --epochs 3"


def test_an_unknown_preset_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from" in refused(["mnist", "--preset", "hero"], capsys)


def test_a_classifier_run_prints_its_wrong_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["classifier", "--epochs", "1", "--store", str(tmp_path)]) == 0
    assert "wrong answers on test data, a row for each true label" in capsys.readouterr().out


def test_a_run_prints_the_checkpoint_path_and_metrics(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["classifier", "--store", str(tmp_path), "--seed", "4"]) == 0
    out = capsys.readouterr().out
    (path,) = (tmp_path / "checkpoints" / "classifier").glob("*.pt")
    _, record = state_dict.load("classifier", specs()["classifier"], path)
    assert f"checkpoint {path}\n" in out
    assert f"accuracy {record.metrics['accuracy']:.4g}" in out
    assert record.command == "python -m training classifier --seed 4"
    assert 8 <= out.count("step ") <= 12, "a line for each tenth"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "panels"), [("regressor", 3), ("classifier", 3), ("mnist", 2)])
def test_plot_draws_the_curves_and_the_fit(name: str, panels: int, tmp_path: Path) -> None:
    words = [name, "--epochs", "2", "--store", str(tmp_path), "--plot", str(tmp_path / "new" / "run.png")]
    assert command.main([*words, *(["--dataset", "digits"] if name == "mnist" else [])]) == 0
    with Image.open(tmp_path / "new" / "run.png") as picture:
        assert picture.width == pytest.approx(panels * 5.2 * plots.DPI, abs=2)
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20, "more than a blank page"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.png"]


@pytest.mark.parametrize("powers", [0.1, 1, 4])
def test_an_axis_has_its_numbers_however_far_apart_the_values_are(powers: float) -> None:
    run = [Progress(epoch=n, epochs=9, step=n, steps=9, loss=10 ** (powers * n), metrics={"mse": 1}) for n in range(9)]
    axes = plots.draw("A run that fails", run, recipes()["regressor"]).axes[0]
    low, high = axes.get_ylim()
    assert 2 <= sum(low <= place <= high for place in axes.yaxis.get_majorticklocs()) <= 10


def test_output_names_the_file(tmp_path: Path) -> None:
    assert command.main(["regressor", "--epochs", "1", "--output", str(tmp_path / "mine.pt")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine.pt"]


@pytest.mark.parametrize("words", [["--output", "{}/taken/fit.pt"], ["--store", "{}/taken"]])
def test_an_unwritable_place_is_one_line_and_exit_1(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    assert command.main(["regressor", *(word.format(tmp_path) for word in words)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the checkpoint cannot be written" in line


@pytest.mark.slow
def test_a_plot_that_cannot_be_written_costs_the_plot_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    plot = str(tmp_path / "taken" / "run.png")
    assert command.main(["regressor", "--epochs", "1", "--store", str(tmp_path), "--plot", plot]) == 1
    assert "run.png cannot be written" in capsys.readouterr().err
    assert list((tmp_path / "checkpoints" / "regressor").glob("*.json"))


def test_a_loss_that_blows_up_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["regressor", "--activation", "tanh", "--lr", "100", "--store", str(tmp_path)]
    assert command.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "lower lr (100)" in line
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
def test_schemas_are_all_that_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "training", "--schemas"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    schemas: dict[str, Any] = json.loads(done.stdout)
    assert list(schemas) == NAMES
    for name, schema in schemas.items():
        assert schema == {
            "hyperparameters": recipes()[name].config.model_json_schema(),
            "metric": recipes()[name].metric,
            "higher_is_better": recipes()[name].higher_is_better,
            "target": recipes()[name].target,
            "built_in": recipes()[name].built_in,
        }


@pytest.mark.slow
def test_what_a_recipe_prints_is_not_among_the_schemas(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "noisy.py").write_text("import os\nprint('RECIPE')\nos.system('echo RECIPE')\n")
    command = [sys.executable, "-m", "training", "--schemas", "--project", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert list(json.loads(done.stdout)) == NAMES
    assert done.stderr.count("RECIPE") == 2


@pytest.mark.slow
def test_asking_for_the_schemas_loads_nothing_heavy() -> None:
    code = "import sys, training.__main__ as it; it.main(['--schemas']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert not {"torchvision", "sklearn", "matplotlib"} & set(loaded.split())


def test_lines_come_for_each_tenth_and_every_five_seconds_of_a_slow_run() -> None:
    clock = [0.0]
    written: list[str] = []
    report = lines(written.append, now=lambda: clock[0])
    for step in range(1, 101):
        report(Progress(epoch=1, epochs=1, step=step, steps=100, loss=0.5, metrics={"mse": 0.25}))
    assert written == [
        f"epoch 1/1  step {step}/100  loss 0.5  mse 0.25" for step in (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    ]
    clock[0] = 5.0
    report(Progress(epoch=1, epochs=1, step=1_001, steps=10_000, loss=0.5))
    assert len(written) == 11


def all_of(terminal: int) -> str:
    """What was written to a pseudo-terminal whose other side is closed: a single read may return part of it."""
    shown = bytearray()
    with os.fdopen(terminal, "rb", buffering=0) as stream, contextlib.suppress(OSError):  # Linux ends with EIO
        while part := stream.read(65_536):
            shown += part
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        with shown_progress() as report:
            report(Progress(epoch=1, epochs=2, step=3, steps=4, loss=0.5, metrics={"mse": 0.25}))
    shown = all_of(ours)
    assert "3/4" in shown
    assert "loss 0.5  mse 0.25" in shown
    assert "\x1b[" in shown
