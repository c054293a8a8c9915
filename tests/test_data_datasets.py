"""The table of dataset versions, on both databases; data of recipes; the datasets that versions are compared on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.checkpoints.location import DatasetFile
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.messages import (
    Evaluate,
    Evaluated,
    Export,
    ExportDone,
    Failed,
    FailureKind,
    Fit,
    Fitted,
    Ingested,
    Pairs,
)
from service.data.datasets import Datasets
from service.delivery.registry import Registry
from service.errors import Conflict, NotFound
from service.jobs.queue import Jobs
from service.store.database import Store
from tests.dataset_service import SUMMARY, Scripted, work
from tests.fakes import save_line


@pytest.fixture
def datasets(store: Store) -> Datasets:
    return Datasets(store)


def add(store: Store, sha256: str, name: str = "field", parent: str | None = None, source: str = "s") -> str:
    """Add a version with files. Returns its label."""
    folder = Storage(store.folder).dataset("line", sha256)
    folder.mkdir(parents=True, exist_ok=True)
    made = Ingested(sha256=sha256, folder=folder.relative_to(store.folder).as_posix(), summary=SUMMARY)
    with store.write() as connection:
        return Datasets(store).add(connection, "line", name, made, source=source, parent=parent, job="j", now=1.0).label


def register(store: Store, name: str, record: Record) -> int:
    path = save_line(Storage(store.folder).checkpoints("line"), name)
    with store.write() as connection:
        return Registry(store).add(connection, "line", path, record, job=None, now=1.0)


def test_numbers_rise_and_are_not_used_again(store: Store, datasets: Datasets) -> None:
    assert [add(store, sha256) for sha256 in "aab"] == ["field@1", "field@1", "field@2"]
    datasets.delete("line", "field", 2, erase=False, now=5.0)
    assert add(store, "b") == "field@3"
    assert add(store, "a", "other") == "other@1"
    assert [found.label for found in datasets.listed("line")] == ["field@1", "field@3", "other@1"]
    assert datasets.get("line", "field", 2).deleted_at == 5.0
    with store.read() as connection:
        assert datasets.find(connection, "line", "field").label == "field@3"
        with pytest.raises(NotFound, match="field@2 of line was deleted"):
            datasets.find(connection, "line", "field@2")
        with pytest.raises(NotFound):
            datasets.find(connection, "mnist", "field")


def test_erasing_removes_what_no_other_version_uses(store: Store, datasets: Datasets) -> None:
    storage = Storage(store.folder)
    add(store, "a", source="first")
    add(store, "b", parent="field@1", source="second")
    add(store, "a", "other", source="second")
    for source in ("first", "second"):
        storage.original("line", source).parent.mkdir(exist_ok=True)
        storage.original("line", source).touch()
    with pytest.raises(Conflict, match="field@2 has grown from field@1"):
        datasets.delete("line", "field", 1, erase=True, now=2.0)
    datasets.delete("line", "field", 2, erase=True, now=2.0)
    assert not storage.dataset("line", "b").exists()
    assert storage.original("line", "second").exists()
    datasets.delete("line", "field", 1, erase=True, now=2.0)
    assert storage.dataset("line", "a").is_dir()
    assert not storage.original("line", "first").exists()
    datasets.delete("line", "other", 1, erase=True, now=2.0)
    assert [path.name for path in storage.datasets("line").iterdir()] == ["originals"]
    assert not storage.original("line", "second").exists()
    assert datasets.listed("line") == []


def test_the_data_of_a_recipe_is_version_1_of_its_name(store: Store, datasets: Datasets) -> None:
    record = Record(model="line", sha256="0" * 64, dataset="lines")
    assert [register(store, "a", record), register(store, "b", record)] == [1, 2]
    register(store, "c", replace(record, dataset="field@1", dataset_sha256="a" * 64))
    (found,) = datasets.built_in("line", {})
    assert (found.label, found.trained, found.created_at) == ("lines@1", (1, 2), 1.0)
    assert [datasets.named_built_in("line", name, {}) for name in ("lines", "lines@1", "lines@2", "other")] == [
        "lines",
        "lines",
        None,
        None,
    ]
    assert add(store, "a", "lines") == "lines@2"
    assert [datasets.named_built_in("line", name, {}) for name in ("lines", "lines@1")] == [None, "lines"]


def test_data_that_a_recipe_declares_is_known_before_a_version_was_trained_on_it(
    store: Store, datasets: Datasets
) -> None:
    declared = {"lines": {"train": 8, "validation": 1, "test": 1}, "field": {"train": 1, "validation": 1, "test": 1}}
    add(store, "a")  # a user's field@1
    (found,) = datasets.built_in("line", declared)
    assert (found.label, found.examples, found.created_at, found.trained) == ("lines@1", declared["lines"], None, ())
    names = ("lines", "lines@1", "lines@2", "field", "field@1")
    assert [datasets.named_built_in("line", name, declared) for name in names] == ["lines", "lines", None, None, None]
    made = Ingested(sha256="b", folder="b", summary=SUMMARY, built_in=("lines",))
    with store.write() as connection:
        label = datasets.add(connection, "line", "lines", made, source="s", parent=None, job="j", now=1.0).label
    assert label == "lines@2"
    register(store, "a", Record(model="line", sha256="0" * 64, dataset="lines"))
    (found,) = datasets.built_in("line", declared)
    assert (found.examples, found.created_at, found.trained) == (declared["lines"], 1.0, (1,))


def train(store: Store) -> Any:
    add(store, "a")
    return Jobs(store).enqueue("line", {"epochs": 1}, "if_better", dataset="field", now=0.0)


def fitted(record: Record) -> Fitted:
    return Fitted(record=record, metric="mse", higher_is_better=False)


def test_a_job_trains_and_compares_on_the_version_that_was_pinned(store: Store) -> None:
    train(store)
    add(store, "b")
    live = register(
        store, "live", Record(model="line", sha256="0" * 64, dataset="lines", metrics={"validation_mse": 9})
    )
    with store.write() as connection:
        Registry(store).promote(connection, "line", live, by="start", reason="", now=0.0)
    path = save_line(Storage(store.folder).checkpoints("line"), "new")
    record = Record(
        model="line", sha256="1" * 64, dataset="field@1", dataset_sha256="a", metrics={"validation_mse": 1.0}
    )
    assert path.exists()

    def answer(order: Any) -> Any:
        match order:
            case Fit():
                return fitted(record)
            case Export():
                return ExportDone()
            case Evaluate():
                pairs = Pairs(rows=9, differ=9, candidate_right=8, live_right=1, mean_gain=1.0, standard_error=0.5)
                return Evaluated(metrics={"validation_mse": 2.0}, dataset="field@1", pairs=pairs, new=pairs)

    child = Scripted(answer)
    job = work(store, child)
    folder = store.storage.dataset("line", "a").resolve()
    file = DatasetFile(label="field@1", sha256="a", folder=folder, store=store.storage.location(patient=True))
    named = [order.dataset for order in child.orders if isinstance(order, Fit | Evaluate)]
    assert named == [file, file]
    assert [order.trained_on for order in child.orders if isinstance(order, Evaluate)] == [None]  # data of the recipe
    assert (job.state, job.dataset, job.dataset_sha256) == ("succeeded", "field@1", "a")
    assert job.gate is not None
    assert (job.gate["candidate"], job.gate["live"]) == (1.0, 2.0)
    assert (job.gate["old_rows"], job.gate["new_rows"]["candidate_right"]) == (None, 8)
    assert Datasets(store).trained("line") == {"field@1": [2]}


@pytest.mark.parametrize(("sha256", "live"), [("a", 9.0), ("b", None)])
def test_figures_of_a_record_count_only_for_the_same_name_and_digest(
    store: Store, sha256: str, live: float | None
) -> None:
    """If the live version cannot be evaluated, those of its record are compared, if they are of the same dataset."""
    train(store)
    figures = {"validation_mse": 9.0}
    record = Record(model="line", sha256="0" * 64, dataset="field@1", dataset_sha256=sha256, metrics=figures)
    number = register(store, "live", record)
    with store.write() as connection:
        Registry(store).promote(connection, "line", number, by="start", reason="", now=0.0)
    candidate = replace(record, sha256="1" * 64, dataset_sha256="a", metrics={"validation_mse": 1.0})

    def answer(order: Any) -> Any:
        failed = Failed(kind=FailureKind.CHECKPOINT, title="Broken checkpoint", detail="damaged")
        return fitted(candidate) if isinstance(order, Fit) else failed

    child = Scripted(answer)
    job = work(store, child)
    assert job.gate is not None
    assert (job.gate["live"], job.gate["old_rows"], job.gate["new_rows"]) == (live, None, None)
    (order,) = [order for order in child.orders if isinstance(order, Evaluate)]
    folder, location = store.storage.dataset("line", sha256).resolve(), store.storage.location(patient=True)
    assert order.trained_on == DatasetFile(label="field@1", sha256=sha256, folder=folder, store=location)


def test_a_job_without_a_dataset_trains_on_the_data_of_the_recipe(store: Store, tmp_path: Path) -> None:
    Jobs(store).enqueue("line", {"epochs": 1}, "never", now=0.0)
    child = Scripted(lambda _: Failed(kind=FailureKind.TRAINING, title="Training failed", detail="no data"))
    work(store, child)
    (order,) = child.orders
    assert isinstance(order, Fit)
    assert order.dataset is None
