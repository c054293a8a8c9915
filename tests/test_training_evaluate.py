"""python -m training evaluate MODEL FILE."""

import shutil
from pathlib import Path

import pytest

from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from models.checkpoints.record import record_path
from training import __main__ as command
from training.report.console import confusions, figures
from training.torchvision_shim import import_torchvision

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluated(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert command.main(["evaluate", *words]) == 0
    return capsys.readouterr().out.splitlines()


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a run that could be typed fails."""
    assert command.main(["evaluate", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def kept(name: str, folder: Path, *, record: bool) -> Path:
    """A copy of a shipped checkpoint, with or without its record."""
    path = folder / f"{name}.pt"
    shutil.copy(PRETRAINED / path.name, path)
    if record:
        shutil.copy(record_path(PRETRAINED / path.name), record_path(path))
    return path


@pytest.mark.parametrize(("name", "parameters"), [("regressor", "31"), ("classifier", "52")])
def test_it_prints_what_the_record_says(name: str, parameters: str, capsys: pytest.CaptureFixture[str]) -> None:
    network, record = state_dict.load(name, specs()[name], PRETRAINED / f"{name}.pt")
    assert sum(weights.numel() for weights in network.parameters()) == int(parameters)
    head, *rest = evaluated([name, str(PRETRAINED / f"{name}.pt")], capsys)
    assert head.startswith(
        f"{name}, {parameters} parameters, on {record.dataset}: 5,000 test samples, 5,000 validation",
    )
    assert "\n".join(rest) == "\n".join(filter(None, [figures(record.metrics), confusions(record.metrics)]))


@pytest.mark.slow
def test_the_mnist_figures_are_all_there(mnist_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mnist", str(PRETRAINED / "mnist.pt"), "--data", str(mnist_folder)]
    head, line, *matrix = evaluated(words, capsys)
    assert head == "mnist, 28,938 parameters, on mnist: 10,000 test samples, 5,000 validation samples"
    assert all(f"{key} " in line for key in ("accuracy", "loss", "calibration_error", "validation_accuracy"))
    assert matrix[1].split() == [*"0123456789", "recall"]
    assert [row.split()[0] for row in matrix[2:]] == list("0123456789")


def test_a_bare_state_dict_is_judged_by_the_default_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_record = evaluated(["classifier", str(PRETRAINED / "classifier.pt")], capsys)
    assert evaluated(["classifier", str(kept("classifier", tmp_path, record=False))], capsys) == with_record


@pytest.mark.parametrize("name", ["net_params.pkl", "weights.bin", "model.pth", "checkpoint", "last.ckpt"])
def test_a_state_dict_may_have_any_file_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept("regressor", tmp_path, record=False).rename(tmp_path / name)
    assert evaluated(["regressor", str(path)], capsys)[0].startswith("regressor, ")


@pytest.mark.parametrize("record", [True, False])
def test_another_model_s_checkpoint_is_refused(
    record: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(["classifier", str(kept("regressor", tmp_path, record=record))], capsys)
    assert ("is a checkpoint of regressor, not of classifier" if record else "does not fit the network") in line


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.pt cannot be read (No such file" in refused(["mnist", str(tmp_path / "gone.pt")], capsys)


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept("regressor", tmp_path, record=False)
    path.write_bytes(path.read_bytes()[:500])
    assert "regressor.pt is not a state_dict file" in refused(["regressor", str(path)], capsys)


def test_a_record_of_other_hyperparameters_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept("regressor", tmp_path, record=True)
    record_path(path).write_text(record_path(path).read_text().replace('"epochs"', '"epocs"'))
    assert "regressor.json names hyperparameters that regressor does not have" in refused(
        ["regressor", str(path)],
        capsys,
    )


def test_missing_data_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(import_torchvision("torchvision.datasets").MNIST, "mirrors", [])
    line = refused(["mnist", str(PRETRAINED / "mnist.pt"), "--data", str(tmp_path)], capsys)
    assert "the MNIST files are not readable" in line


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "the following arguments are required: MODEL, FILE"),
        (["forest", "forest.pt"], "invalid choice: 'forest'"),
    ],
)
def test_an_invalid_argument_exits_with_2(
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["evaluate", *words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
