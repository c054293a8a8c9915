"""Splits are for good: one digest for each content, kept with its split by all versions of a name, and by groups."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.location import StoreLocation
from models.checkpoints.storage import Storage
from models.messages import Ingest
from tests.dataset_files import index, line_rows, made, split_of, version, write_csv, write_jsonl
from tests.each import each_holds
from tests.fakes import LINE
from tests.signatures import TABLE
from training.datasets import splits
from training.datasets.errors import DatasetError
from training.datasets.splits import SPLITS
from training.executor import Executor
from training.recipe import Recipe, recipes

X = np.round(np.random.default_rng(0).normal(size=300), 4)
OVERRULED = "rows name another split than that which an earlier version gave their content or group: they keep that one"
CONTRADICTORY = "rows name another split than an earlier row of the same content: the earlier one counts"


def write_parquet(path: Path) -> Path:
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"x": X, "y": X}), path)
    return path


def write_npz(path: Path, dtype: str) -> Path:
    np.savez(path, x=X[:, None].astype(dtype), y=X)
    return path


def rows_of(numbers: Any, *others: Any) -> list[Any]:
    """Return rows x, y = 0, and columns that follow from x."""
    return [(number, 0, *(other(number) for other in others)) for number in numbers]


def write(path: Path, rows: list[Any], *columns: str) -> Path:
    return write_csv(path, [("x", "y", *columns), *rows])


def test_numbers_are_the_same_content_in_every_format(tmp_path: Path) -> None:
    old = made(tmp_path, write_csv(tmp_path / "a.csv", [("x", "y"), *zip(X, X, strict=True)]))
    others = {
        "float32": lambda: write_npz(tmp_path / "b.npz", "float32"),
        "float64": lambda: write_npz(tmp_path / "c.npz", "float64"),
        "JSON Lines": lambda: write_jsonl(tmp_path / "d.jsonl", [{"input": [x], "label": x} for x in X.tolist()]),
        "Parquet": lambda: write_parquet(tmp_path / "e.parquet"),
    }

    def is_the_same(case: str) -> None:
        done = made(tmp_path, others[case](), parent=version(tmp_path, old))
        assert (done.summary.added, done.summary.duplicates) == (0, 300)
        assert done.sha256 == old.sha256

    each_holds(is_the_same, others)


def test_numbers_by_name_count_as_the_network_takes_them(tmp_path: Path) -> None:
    ages = (X + 50).astype(np.float32)
    values: dict[str, Any] = {"model": "table", "spec": TABLE, "target": "value"}
    rows = [("age", "sex", "y"), *((age, "male", 0) for age in np.round(X + 50, 4))]
    old = made(tmp_path, write_csv(tmp_path / "a.csv", rows), **values)
    np.savez(tmp_path / "b.npz", age=ages, sex=np.array(["male"] * 300), y=np.zeros(300))
    done = made(tmp_path, tmp_path / "b.npz", parent=version(tmp_path, old), **values)
    assert (done.summary.added, done.summary.duplicates) == (0, 300)
    wide = replace(TABLE, encode=lambda sample: {name: np.float32(0) for name in sample})
    stamps = [("age", "sex", "y"), *((50 + number / 2**30, "male", 0) for number in range(9))]
    whole = made(tmp_path, write_csv(tmp_path / "c.csv", stamps), **{**values, "spec": wide})
    assert whole.summary.duplicates == 0  # `encode` gets all digits


def test_a_content_keeps_its_split_in_versions_without_a_parent(tmp_path: Path) -> None:
    first = made(tmp_path, write(tmp_path / "a.csv", rows_of(range(100), lambda x: SPLITS[x % 3]), "split"))
    kin = (version(tmp_path, first),)
    other = rows_of(range(150), lambda x: SPLITS[(x + 1) % 3])
    second = made(tmp_path, write(tmp_path / "b.csv", other, "split"), kin=kin)
    drawn = made(tmp_path, write_csv(tmp_path / "c.csv", line_rows(100)), kin=kin)
    before, after = split_of(tmp_path, first), split_of(tmp_path, second)
    assert len(after) == 150
    assert {digest: after[digest] for digest in before} == before == split_of(tmp_path, drawn)
    assert f"100 {OVERRULED}" in second.summary.warnings
    assert not any("another split" in warning for warning in (*first.summary.warnings, *drawn.summary.warnings))
    grown = made(tmp_path, write(tmp_path / "d.csv", other, "split"), parent=kin[0])
    assert f"100 {OVERRULED}" in grown.summary.warnings
    assert grown.sha256 == second.sha256
    by_kin = made(
        tmp_path, write(tmp_path / "e.csv", rows_of(range(100, 200)), ), parent=kin[0], kin=(version(tmp_path, second),)
    )  # fmt: skip
    found = split_of(tmp_path, by_kin)
    assert len(found) == 200
    assert {digest: found[digest] for digest in after} == after


def test_a_group_stays_in_its_split(tmp_path: Path) -> None:
    def group(x: int) -> str:
        return f"p{x % 30}"

    def own(x: int) -> str:
        return SPLITS[x % 30 % 3]

    first = made(tmp_path, write(tmp_path / "a.csv", rows_of(range(90), group, own), "group", "split"))
    folder = version(tmp_path, first)
    more = write(tmp_path / "b.csv", rows_of(range(90, 180), group), "group")
    moved = write(tmp_path / "c.csv", rows_of(range(90, 180), group, lambda x: own(x + 1)), "group", "split")
    grown = made(tmp_path, more, parent=folder)
    anew = made(tmp_path, moved, kin=(folder,))
    assert f"90 {OVERRULED}" in anew.summary.warnings
    last = write(tmp_path / "d.csv", rows_of(range(180, 210), group), "group")
    for done in (grown, anew, made(tmp_path, last, parent=version(tmp_path, grown))):
        found = index(tmp_path, done)
        kept = np.asarray(found.sources) == max(found.sources)
        numbers = np.asarray(found.numbers)[kept] - 1  # rows of the file begin with p0
        assert found.splits[kept].tolist() == (numbers % 30 % 3).tolist()


def test_a_new_group_goes_with_the_contents_that_are_known(tmp_path: Path) -> None:
    first = made(tmp_path, write(tmp_path / "a.csv", rows_of(range(20), lambda x: SPLITS[x % 3]), "split"))
    rows = rows_of(range(60), lambda x: f"p{x % 20}")
    done = made(tmp_path, write(tmp_path / "b.csv", rows[::-1], "group"), kin=(version(tmp_path, first),))
    found = index(tmp_path, done)
    assert found.splits.tolist() == [x % 20 % 3 for x in range(60)][::-1]
    without = made(tmp_path, write(tmp_path / "c.csv", rows_of(range(60))), kin=(version(tmp_path, done),))
    assert split_of(tmp_path, without) == split_of(tmp_path, done)
    assert without.sha256 != done.sha256  # it would grow otherwise


def test_the_first_of_two_splits_of_a_content_counts(tmp_path: Path) -> None:
    rows = [(x, 0, split) for split in ("train", "test", "", "train") for x in range(10)]
    done = made(tmp_path, write(tmp_path / "a.csv", rows, "split"))
    assert (done.summary.examples["test"], done.summary.duplicates) == (0, 30)
    assert f"10 {CONTRADICTORY}" in done.summary.warnings
    drawn = made(tmp_path, write(tmp_path / "b.csv", [(1, 0, ""), (1, 0, "train"), (1, 0, "test")], "split"))
    assert any(warning in drawn.summary.warnings for warning in (f"1 {CONTRADICTORY}", f"2 {CONTRADICTORY}"))


def test_versions_are_looked_up_in_parts_and_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "PART", 3)
    keys = np.array([5, 1, 9, 5, 2], np.uint64)
    first = (np.array([5, 5, 7, 0, 5], np.uint64), np.array([1, 2, 0, 0, 2], np.uint8))
    second = (np.array([2, 5], np.uint64), np.array([2, 0], np.uint8))
    assert splits.known(keys, [first, second]).tolist() == [1, 255, 255, 1, 2]
    assert splits.known(keys[:0], [first]).tolist() == []


def test_a_version_without_its_files_is_named(tmp_path: Path) -> None:
    gone = tmp_path / ("b" * 64)
    with pytest.raises(DatasetError, match=r"SHA-256 bbbbbbbbbbbb\.\.\., .* or delete that version with erase=true"):
        made(tmp_path, write_csv(tmp_path / "a.csv", line_rows(9)), kin=(gone,))


def test_the_files_of_all_versions_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, kin = (
        version(tmp_path, made(tmp_path, write_csv(tmp_path / f"{count}.csv", line_rows(count)))) for count in (40, 60)
    )
    fetched: list[str] = []
    monkeypatch.setattr(Storage, "fetch_dataset", lambda _, model, sha256: fetched.append(f"{model} {sha256}"))
    told: list[Any] = []
    recipe: Recipe[Any] = recipes()["regressor"]
    order = Ingest(
        model="line", store=StoreLocation(tmp_path / "store"), job="k", attempt=1, data=tmp_path, parent=parent,
        source=write_csv(tmp_path / "new.csv", line_rows(70)), kin=(kin,),
    )  # fmt: skip
    Executor(told.append, {"line": LINE}, lambda: {"line": recipe}).do(order)
    assert told[-1].summary.added == 30
    assert fetched == [f"line {kin.name}", f"line {parent.name}"]
