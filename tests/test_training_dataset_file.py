"""python -m training NAME --dataset-file FILE: own data on the command line."""

import json
from pathlib import Path

import pytest

from tests.dataset_files import digit, png, write_csv, write_folder
from training.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_folder_of_pictures_is_trained_on_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"{number % 10}/{number}.png": png(digit(number)) for number in range(120)}
    folder = write_folder(tmp_path / "digits", files)
    out = tmp_path / "m.pt"
    words = ["--dataset-file", str(folder)]
    assert main(["mnist", *words, "--output", str(out), "--data", str(tmp_path), "--limit", "60"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("digits: 120 rows, 0 refused, 0 duplicates; examples: train ")
    assert "warning: " in said
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["dataset"] == "digits"
    assert len(record["dataset_sha256"]) == 64
    assert record["command"] == "python -m training mnist --limit 60 --dataset-file digits"
    assert not list(tmp_path.glob("torchloop-*"))
    assert main(["evaluate", "mnist", str(out), "--data", str(tmp_path)]) == 1
    assert "m.pt was trained on digits: name its file with --dataset-file" in capsys.readouterr().err
    assert main(["evaluate", "mnist", str(out), *words]) == 0
    assert "28,938 parameters, on digits: " in capsys.readouterr().out


def test_refused_rows_stop_the_run_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x", "price"), *((number / 100, number) for number in range(100)), ("oops", 1)]
    source = write_csv(tmp_path / "a.csv", rows)
    words = ["regressor", "--dataset-file", str(source), "--label-column", "price", "--output", str(tmp_path / "m.pt")]
    assert main([*words, "--epochs", "1"]) == 1
    shown = capsys.readouterr()
    assert "row 101 (x, oops): Wrong sample: a sample must be numbers in shape [1]" in shown.out
    assert "a.csv: Too many rows refused: 1 of 101 rows were refused, at most 0.00% may be" in shown.err
    assert main([*words, "--epochs", "1", "--lr", "0.000001", "--allow-rejected", "0.02"]) == 0
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["command"].endswith("--dataset-file a.csv --label-column price")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset-file", "/nowhere.csv"], "/nowhere.csv does not exist"),
        (["--allow-rejected", "2"], "2 is not from 0 to 1"),
        (["--allow-rejected", "few"], "few is no number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["regressor", *words])
    assert said in capsys.readouterr().err
