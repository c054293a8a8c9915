"""python -m training NAME --dataset-file FILE: own data on the command line."""

import json
from pathlib import Path

import pytest

from models.catalog import specs
from service.data.datasets import Datasets
from service.store.database import Store
from tests.dataset_files import digit, made, png, write_csv, write_folder
from tests.templates import migrated
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
    assert (
        "m.pt was trained on digits: name its file with --dataset-file, or its version in the store with"
        in capsys.readouterr().err
    )
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


def stored(folder: Path, name: str, rows: int) -> None:
    """Make a version of a dataset of the regressor in the store `folder`/store, as an ingest job does."""
    source = write_csv(folder / f"{rows}.csv", [("x", "value"), *((at / rows, at / rows) for at in range(rows))])
    done = made(folder, source, specs()["regressor"], model="regressor")
    store = Store(migrated(folder / "store"))
    with store.write() as connection:
        Datasets(store).add(connection, "regressor", name, done, source="s", parent=None, job="j", now=0.0)
    store.close()


@pytest.mark.slow
def test_versions_in_the_store_are_trained_on_compared_and_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, "field", 90)
    stored(tmp_path, "field", 120)
    out, words = tmp_path / "m.pt", ["--store", str(tmp_path / "store"), "--dataset"]
    assert main(["regressor", *words, "field", "--epochs", "2", "--output", str(out)]) == 0
    assert capsys.readouterr().out.startswith("field@2: examples: train ")
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["dataset"] == "field@2"
    assert len(record["dataset_sha256"]) == 64
    assert record["command"] == "python -m training regressor --epochs 2 --dataset field@2"
    assert main(["evaluate", "regressor", str(out), *words, "field@2"]) == 0
    assert f"validation_mse {record['metrics']['validation_mse']:.4g}" in capsys.readouterr().out
    assert main(["compare", "regressor", "--vary", "epochs=1,2", *words, "field@2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[2] == f"{record['metrics']['validation_mse']:.4g}"
    assert main(["mnist", *words, "field@2"]) == 1
    assert "--dataset field@2: mnist has no dataset field@2" in (said := capsys.readouterr().err)
    assert said.endswith("; the data of the recipe is mnist or digits\n")


def test_a_file_is_compared_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x", "value"), *((at / 90, at / 90) for at in range(90))]
    file = str(write_csv(tmp_path / "a.csv", rows))
    assert main(["compare", "regressor", "--vary", "epochs=1,2", "--dataset-file", file]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("a.csv: 90 rows")
    assert said[-1].startswith("2 ")


@pytest.mark.slow
def test_a_store_without_a_database_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regressor", "--store", str(tmp_path), "--dataset", "field@1"]) == 1
    assert "--dataset field@1: there is no database in the store folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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
