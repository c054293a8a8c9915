"""Ingest: rows are judged by the spec, versions are immutable, and splits are for good."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.storage import Storage
from models.entries import from_json
from models.errors import InvalidInput
from models.reference import feature_ranges
from tests.dataset_files import (
    digit,
    idx,
    index,
    line_rows,
    made,
    png,
    split_of,
    version,
    write_csv,
    write_jsonl,
    write_zip,
)
from tests.fakes import LINE
from tests.signatures import TABLE, TEXT
from training.datasets.errors import DatasetError
from training.datasets.ingest import known_digest
from training.datasets.splits import TRAIN
from training.datasets.version import read_index, read_manifest
from training.recipe import recipes

MNIST: dict[str, Any] = {"model": "mnist", "target": "label", "labels": tuple("0123456789")}
TABLES: dict[str, Any] = {"model": "table", "spec": TABLE, "target": "value"}


def report_of(folder: Path, job: str = "j") -> Path:
    return Storage(folder / "store").report("line", job)


def mnist_spec() -> Any:
    from models.mnist import SPEC  # noqa: PLC0415 - so that the other tests need no model

    return SPEC


def test_each_refused_row_is_reported_with_the_words_of_predict(tmp_path: Path) -> None:
    rows = [("x", "y"), ("1", 2), ("oops", 2), ("1e39", 2), ("3", "many"), ("4", "")]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), allow_rejected=1.0)
    lines = report_of(tmp_path).read_text().splitlines()
    found = {line["row"]: line for line in map(json.loads, lines)}
    with pytest.raises(InvalidInput) as error:
        raise from_json(b'{"inputs": [["oops"]]}', LINE.tensor).errors[0]
    assert found[2] == {
        "title": error.value.title, "detail": error.value.detail, "row": 2, "column": "x", "value": "oops",
        "picture": False,
    }  # fmt: skip
    assert found[3]["title"] == "Number out of range"
    assert (found[3]["column"], found[3]["value"]) == ("x", "1e+39")
    assert found[4]["detail"] == "'many' is no number, the value to be learnt"
    assert found[5]["title"] == "Missing value"
    assert sorted(found) == [2, 3, 4, 5]
    summary = done.summary
    assert (summary.rows, summary.rejected, sum(summary.examples.values())) == (5, 4, 1)
    reasons = {reason.title: reason.rows for reason in summary.by_reason}
    assert reasons == {"Missing value": 1, "Number out of range": 1, "Wrong sample": 1, "Wrong value": 1}


def test_a_named_input_is_judged_by_its_kind_and_its_column_is_named(tmp_path: Path) -> None:
    rows = [("id", "age", "sex", "fare", "label"), (1, 22, "male", "", 0.5), (2, 200, "male", 7, 1), (3, 30, "m", 7, 1)]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), allow_rejected=1.0, **TABLES)
    (first, second) = done.summary.by_reason
    assert (first.first[0].column, first.first[0].value, first.first[0].detail) == (
        "age", "200.0", "age: 200 is not from 0 to 120"
    )  # fmt: skip
    assert second.first[0].detail == "sex: 'm' is none of 'female', 'male'"
    assert done.summary.rejected == 2
    assert "columns that are no input of the model were not used: id" in done.summary.warnings


def test_more_refused_rows_than_allowed_make_no_version_but_a_report(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*line_rows(9), ("bad", 1)])
    with pytest.raises(DatasetError, match=r"1 of 10 rows were refused, at most 5\.00% may be") as error:
        made(tmp_path, source, allow_rejected=0.05)
    assert error.value.summary
    assert error.value.summary.rejected == 1
    assert "bad" in report_of(tmp_path).read_text()
    kept = [path.name for path in (tmp_path / "store/datasets/line").iterdir()]
    assert sorted(kept) == ["originals", "reports"]
    assert sum(made(tmp_path, source, allow_rejected=0.1).summary.examples.values()) == 9


def test_the_same_rows_have_the_same_digest_in_any_order_and_format(tmp_path: Path) -> None:
    rows = line_rows(50)
    one = made(tmp_path, write_csv(tmp_path / "a.csv", rows))
    other = made(tmp_path, write_csv(tmp_path / "b.csv", [rows[0], *rows[:0:-1]]))
    third = made(tmp_path, write_jsonl(tmp_path / "c.jsonl", [{"x": x, "y": y} for x, y in rows[1:]]))
    assert one.sha256 == other.sha256 == third.sha256
    assert one.folder == third.folder
    made(tmp_path, write_csv(tmp_path / "f.csv", [*rows, ("bad", 1)]), allow_rejected=1.0, job="k")
    assert (report_of(tmp_path).read_text(), "bad" in report_of(tmp_path, "k").read_text()) == ("", True)
    less = made(tmp_path, write_csv(tmp_path / "d.csv", rows[:-1]))
    assert less.sha256 != one.sha256
    changed = made(tmp_path, write_csv(tmp_path / "e.csv", [*rows[:-1], (49, 7)]))
    assert changed.sha256 != one.sha256


def test_growing_changes_no_split_and_counts_new_rows(tmp_path: Path) -> None:
    old = made(tmp_path, write_csv(tmp_path / "a.csv", line_rows(400)))
    parent = version(tmp_path, old)
    new = made(tmp_path, write_csv(tmp_path / "b.csv", line_rows(300, start=300)), parent=parent)
    before, after = split_of(tmp_path, old), split_of(tmp_path, new)
    assert len(after) == 600
    assert all(after[digest] == split for digest, split in before.items())
    assert (new.summary.added, new.summary.duplicates, new.summary.rows) == (200, 100, 300)
    whole = made(tmp_path, write_csv(tmp_path / "c.csv", line_rows(600)))
    assert whole.sha256 == new.sha256
    shares = np.bincount(index(tmp_path, new).splits) / 600
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.04)


def test_the_same_content_is_never_in_two_splits(tmp_path: Path) -> None:
    rows = [("x", "y", "split"), (1, 3, "train"), (1.0, 3, "test"), ("1e0", 4, "validation"), (2, 5, "test")]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows))
    assert done.summary.examples == {"train": 1, "validation": 0, "test": 1}
    assert (done.summary.duplicates, done.summary.conflicting_labels) == (1, 1)
    assert any("first row 3: the earlier one counts" in warning for warning in done.summary.warnings)


def test_own_splits_win_and_a_missing_one_is_drawn_from_the_training_rows(tmp_path: Path) -> None:
    rows = [("x", "y", "split"), *((number, 1, "train" if number < 300 else "test") for number in range(330))]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows))
    assert done.summary.examples["test"] == 30
    assert 15 <= done.summary.examples["validation"] <= 45
    with pytest.raises(DatasetError, match="'tset' is none of train, validation and test"):
        made(tmp_path, write_csv(tmp_path / "b.csv", [*rows, (400, 1, "tset")]))


def test_rows_of_one_group_are_in_one_split(tmp_path: Path) -> None:
    rows = [("x", "y", "patient"), *((number, 1, f"p{number % 20}") for number in range(400))]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), group_column="patient")
    found = index(tmp_path, done)
    for patient in range(20):
        members = (np.asarray(found.numbers) - 1) % 20 == patient
        assert len(set(found.splits[members].tolist())) == 1
    assert len(set(found.splits.tolist())) > 1


def test_rows_of_the_built_in_training_split_are_never_held_out(tmp_path: Path) -> None:
    known = frozenset(known_digest(np.array([number], np.float32)) for number in range(200))
    rows = [("x", "y", "split"), *((number, 1, "test") for number in range(210))]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), known=known)
    assert done.summary.examples["train"] == 200
    assert done.summary.examples["test"] <= 10


def test_labels_come_from_the_data_and_grow_with_it(tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": "text", "spec": TEXT, "target": "label"}
    rows = [("review", "label"), ("good film", "yes"), ("bad film", "no"), ("awful", "no")]
    old = made(tmp_path, write_csv(tmp_path / "a.csv", rows), **values)
    assert list(old.summary.by_label) == ["no", "yes"]
    assert sum(old.summary.by_label["no"].values()) == 2
    more = [("review", "label"), ("so so", "maybe")]
    new = made(tmp_path, write_csv(tmp_path / "b.csv", more), parent=version(tmp_path, old), **values)
    assert {label: sum(found.values()) for label, found in new.summary.by_label.items()} == {
        "maybe": 1, "no": 2, "yes": 1
    }  # fmt: skip
    assert index(tmp_path, new).targets.tolist() == [2, 1, 1, 0]


def test_a_label_outside_of_fixed_ones_is_a_refused_row(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "a.zip", {"7/a.png": png(digit(1)), "seven/b.png": png(digit(2))})
    done = made(tmp_path, source, mnist_spec(), allow_rejected=0.5, **MNIST)
    (reason,) = done.summary.by_reason
    assert reason.title == "Unknown label"
    assert reason.first[0].detail == "'seven' is none of the model's labels: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_warnings_tell_of_few_rows_missing_classes_and_one_label(tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": "text", "spec": TEXT, "target": "label"}
    rows = [("review", "label"), *((f"good film {number}", "yes") for number in range(60))]
    warnings = made(tmp_path, write_csv(tmp_path / "a.csv", rows), **values).summary.warnings
    assert any("validation rows: with fewer than 1,000" in warning for warning in warnings)
    assert "all rows have the same label: there is nothing to learn" in warnings
    rows = [*rows, ("bad film", "no")]
    warnings = made(tmp_path, write_csv(tmp_path / "b.csv", rows), **values).summary.warnings
    assert sum("split has no row of no" in warning for warning in warnings) == 2


def test_a_picture_is_the_same_content_in_a_zip_and_in_idx_files(tmp_path: Path) -> None:
    pictures = np.stack([digit(number) for number in range(30)])
    labels = np.arange(30) % 10
    files = {
        f"{label}/{place}.png": png(pixels) for place, (label, pixels) in enumerate(zip(labels, pictures, strict=True))
    }
    zipped = made(tmp_path, write_zip(tmp_path / "a.zip", files), mnist_spec(), **MNIST)
    pair = {"train-images-idx3-ubyte": idx(pictures), "train-labels-idx1-ubyte": idx(labels)}
    raw = made(tmp_path, write_zip(tmp_path / "b.zip", pair), mnist_spec(), **MNIST)
    assert zipped.summary.examples == raw.summary.examples
    assert zipped.sha256 == raw.sha256


def test_a_text_without_words_is_refused_by_encode(tmp_path: Path) -> None:
    rows = [("review", "label"), ("good", "yes"), (" ", "no")]
    with pytest.raises(DatasetError, match="the text has no words"):
        made(tmp_path, write_csv(tmp_path / "a.csv", rows), model="text", spec=TEXT, target="label")


def test_a_version_keeps_the_ranges_of_its_training_rows(tmp_path: Path) -> None:
    checked = replace(LINE, check=feature_ranges())

    def grown(file: str, rows: Any, parent: Path | None = None) -> tuple[Path, Any]:
        done = made(tmp_path, write_csv(tmp_path / file, rows), checked, parent=parent)
        reference = read_manifest(version(tmp_path, done)).reference
        assert reference == done.summary.reference
        return version(tmp_path, done), reference

    def range_of(folder: Path) -> Any:
        found = read_index(folder)
        numbers = [float(target[0] - 2) / 2 for target in found.targets[found.splits == TRAIN]]
        return {"features": [[min(numbers)], [max(numbers)]]}

    first, reference = grown("a.csv", line_rows(50))
    assert reference == range_of(first)
    second, wider = grown("b.csv", line_rows(100, 30), first)
    assert wider == range_of(second) != reference
    _, same = grown("c.csv", [("x", "y", "split"), (5000, 10_002, "test")], second)
    assert same == wider
    assert made(tmp_path, write_csv(tmp_path / "d.csv", line_rows(9))).summary.reference == {}


def test_a_killed_ingest_leaves_nothing_that_the_next_one_minds(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", line_rows(20))
    draft = tmp_path / "store/datasets/line/.draft-j"
    draft.mkdir(parents=True)
    (draft / "report.jsonl").write_text("half")
    done = made(tmp_path, source)
    assert sum(done.summary.examples.values()) == 20
    assert not draft.exists()


def test_a_parent_with_other_inputs_or_another_target_is_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", line_rows(20))
    parent = version(tmp_path, made(tmp_path, source))
    narrow = replace(LINE, entry=replace(LINE.tensor, high=99.0))
    for spec, target in ((narrow, "value"), (LINE, "label")):
        with pytest.raises(DatasetError, match="have changed since the parent was made: start anew"):
            made(tmp_path, source, spec, parent=parent, target=target)
    with pytest.raises(DatasetError, match="the files of the dataset version are missing or damaged"):
        made(tmp_path, source, parent=tmp_path / "nowhere")


def test_every_shipped_recipe_learns_files() -> None:
    assert {name: recipes()[name].target for name in ("mnist", "regressor", "classifier")} == {
        "mnist": "label", "regressor": "value", "classifier": "label"
    }  # fmt: skip
