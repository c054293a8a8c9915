"""Splits are for good: one digest for each content, kept with its split by all versions of a name, and by groups."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.dataset_files import made, version, write_csv, write_jsonl
from tests.each import each_holds
from tests.signatures import TABLE

X = np.round(np.random.default_rng(0).normal(size=300), 4)


def write_parquet(path: Path) -> Path:
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"x": X, "y": X}), path)
    return path


def write_npz(path: Path, dtype: str) -> Path:
    np.savez(path, x=X[:, None].astype(dtype), y=X)
    return path


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
