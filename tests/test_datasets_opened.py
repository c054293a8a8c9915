"""Opened versions: the same training in memory and streamed, caches that follow the code, orders of the worker."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.artifacts import unpack
from models.checkpoints.code import cache_key
from models.checkpoints.location import DatasetFile, StoreLocation
from models.messages import (
    CheckpointFile,
    DatasetOptions,
    Evaluate,
    Evaluated,
    Failed,
    FailureKind,
    Fit,
    Fitted,
    Ingest,
    Ingested,
    Message,
    Progressed,
)
from models.samples import Columns
from models.spec import ModelSpec
from tests.dataset_files import line_rows, made, version, write_csv
from tests.fakes import LINE
from tests.signatures import TABLE, TEXT
from training import metrics
from training.datasets import opened
from training.datasets.built_in import known_digests
from training.datasets.opened import Streamed
from training.executor import Executor
from training.loop import fit
from training.recipe import Dataset, Hyperparameters, Recipe, Report, Split, TrainingError
from training.rows import Coded, Uncoded, prepared

pytestmark = pytest.mark.usefixtures("one_thread")


def fit_values(network: nn.Module, dataset: Dataset, config: Hyperparameters, report: Report) -> None:
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.mse_loss,
        measure=lambda network: metrics.regression(network, dataset.validation),
        samples_per_report=len(dataset.train),
    )


def fit_labels(network: nn.Module, dataset: Dataset, config: Hyperparameters, report: Report) -> None:
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.cross_entropy,
        measure=lambda network: {"accuracy": metrics.accuracy(network, dataset.validation)},
        samples_per_report=len(dataset.train),
    )


def no_data(*_: object) -> Dataset:
    raise TrainingError("there is no built-in data")


def words(_: Hyperparameters, dataset: Dataset) -> Mapping[str, Any]:
    return {"words": sorted({word for row in dataset.train.samples for word in row["review"].split()})}


VALUES = Recipe(
    config=Hyperparameters,
    arguments=lambda _: {},
    load=no_data,
    target="value",
    fit=fit_values,
    evaluate=metrics.regression,
    metric="mse",
    higher_is_better=False,
)
LABELS = Recipe(
    config=Hyperparameters,
    arguments=lambda _, artifacts: {"words": len(artifacts["words"])},
    artifacts=words,
    load=no_data,
    target="label",
    fit=fit_labels,
    evaluate=metrics.classification,
    metric="accuracy",
    higher_is_better=True,
)
SPECS = {"line": LINE, "text": TEXT, "table": TABLE}


@pytest.fixture(autouse=True)
def _specs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.run.specs", lambda: SPECS)


def file_of(folder: Path, done: Ingested) -> DatasetFile:
    return DatasetFile(label="own@1", sha256=done.sha256, folder=version(folder, done))


def lines_of(folder: Path, count: int = 300) -> DatasetFile:
    return file_of(folder, made(folder, write_csv(folder / "a.csv", line_rows(count))))


def do(recipe: Recipe[Any], *orders: Any) -> list[Message]:
    told: list[Message] = []
    executor = Executor(told.append, SPECS, lambda: {"line": recipe, "text": recipe, "table": recipe})
    for order in orders:
        executor.do(order)
    return told


def test_a_version_has_samples_as_the_network_takes_them_and_targets(tmp_path: Path) -> None:
    dataset = opened.opened("line", LINE, VALUES, lines_of(tmp_path))
    assert (dataset.name, dataset.labels) == ("own@1", ())
    assert sum(len(split) for split in (dataset.train, dataset.validation, dataset.test)) == 300
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.samples.dtype, split.targets.dtype) == (torch.float32, torch.float32)
        assert torch.equal(split.targets, 2 * split.samples + 2)


@pytest.mark.slow
def test_streamed_training_gives_the_same_bits_as_training_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made(tmp_path, write_csv(tmp_path / "a.csv", line_rows(200)))
    rows = write_csv(tmp_path / "b.csv", line_rows(200, start=200))
    file = file_of(tmp_path, made(tmp_path, rows, parent=version(tmp_path, old)))  # two originals
    order = Fit(
        model="line",
        config={"epochs": 2, "batch_size": 7, "lr": 1e-6},
        data=tmp_path,
        store=StoreLocation(tmp_path / "store"),
        job="j",
        attempt=1,
        device="cpu",
        tensorboard=False,
        dataset=file,
    )  # fmt: skip
    first = do(VALUES, order)[-1]
    monkeypatch.setattr(opened, "IN_MEMORY", 0)
    assert isinstance(opened.opened("line", LINE, VALUES, file).train.samples, Streamed)
    second = do(VALUES, order)[-1]
    assert isinstance(first, Fitted)
    assert isinstance(second, Fitted)
    assert first.record.sha256 == second.record.sha256
    assert (second.record.dataset, second.record.dataset_sha256) == ("own@1", file.sha256)


def test_streamed_samples_are_used_as_a_tensor_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines_of(tmp_path)
    whole = opened.opened("line", LINE, VALUES, file).train.samples
    monkeypatch.setattr(opened, "IN_MEMORY", 0)
    streamed = opened.opened("line", LINE, VALUES, file).train.samples
    rows = torch.tensor([5, 0, 17, 5])
    assert torch.equal(streamed.index_select(0, rows), whole[rows])
    assert torch.equal(torch.cat(list(streamed[3:40].split(10))), whole[3:40])
    assert streamed.shape == whole.shape
    assert streamed.to("cpu").device == whole.device


def test_rows_of_named_inputs_are_streamed_as_they_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("age", "sex", "fare", "y"),
        *((n % 90, ("male", "female")[n % 2], n if n % 3 else "", n) for n in range(90)),
    ]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), TABLE, model="table")
    found = opened.opened("table", TABLE, VALUES, file_of(tmp_path, done))
    row = found.train.samples[0]
    assert (set(row), row["sex"] in {"male", "female"}) == ({"age", "sex", "fare"}, True)
    whole = prepared(TABLE, found, {}).train.samples
    monkeypatch.setattr(opened, "IN_MEMORY", 0)
    streamed = prepared(TABLE, found, {}).train.samples
    assert isinstance(whole, Coded)
    assert isinstance(streamed, Uncoded)
    places = torch.tensor([4, 1])
    for one, other in (
        (whole.index_select(0, places), streamed.index_select(0, places)),
        (whole[2:9], next(iter(streamed[2:].split(7)))),
    ):
        assert isinstance(one, Coded)
        for name, tensor in one.keywords().items():
            assert torch.equal(tensor.nan_to_num(-1), other.keywords()[name].nan_to_num(-1))
    assert isinstance(whole.columns, Columns)


def test_labels_of_the_data_travel_as_an_artifact(tmp_path: Path) -> None:
    rows = [
        ("review", "label"),
        *((f"good film {n}", "yes") for n in range(40)),
        *((f"bad {n}", "no") for n in range(40)),
    ]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), TEXT, model="text", target="label")
    order = Fit(
        model="text",
        config={"epochs": 1},
        data=tmp_path,
        store=StoreLocation(tmp_path / "store"),
        job="j",
        attempt=1,
        device="cpu",
        tensorboard=False,
        dataset=file_of(tmp_path, done),
    )  # fmt: skip
    fitted = do(LABELS, order)[-1]
    assert isinstance(fitted, Fitted), fitted
    artifacts = unpack(fitted.record.artifacts)
    assert artifacts["labels"] == ["no", "yes"]
    assert "film" in artifacts["words"]


def test_an_order_to_ingest_makes_a_version_that_orders_to_evaluate_use(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*line_rows(300), ("bad", 1)])
    store = tmp_path / "store"
    order = Ingest(
        model="line", store=StoreLocation(store), job="j", attempt=1, source=source, data=tmp_path, allow_rejected=0.01,
        options=DatasetOptions(label_column="y"), config={},
    )  # fmt: skip
    told = do(VALUES, order)
    assert isinstance(told[0], Progressed)
    done = told[-1]
    assert isinstance(done, Ingested)
    assert done.folder == f"datasets/line/{done.sha256}"
    assert (store / "datasets/line/originals").exists()
    assert done.summary.rejected == 1
    assert "there is no built-in data" in done.summary.warnings[0]
    file = DatasetFile(label="own@1", sha256=done.sha256, folder=store / done.folder)
    config: dict[str, Any] = {"epochs": 1, "lr": 1e-6}
    train = Fit(
        model="line", config=config, data=tmp_path, store=StoreLocation(store), job="k", attempt=1, device="cpu",
        tensorboard=False, dataset=file,
    )  # fmt: skip
    fitted = do(VALUES, train)[-1]
    assert isinstance(fitted, Fitted)
    path = store / "checkpoints/line" / f"{fitted.record.sha256[:12]}.pt"
    evaluate = Evaluate(model="line", config=config, data=tmp_path, path=path, record=fitted.record, dataset=file)
    evaluated = do(VALUES, evaluate)[-1]
    assert isinstance(evaluated, Evaluated)
    assert evaluated.dataset == "own@1"
    assert evaluated.metrics["validation_mse"] == fitted.record.metrics["validation_mse"]
    failed = do(VALUES, replace(evaluate, dataset=None))[-1]
    assert isinstance(failed, Failed)
    assert failed.detail == "there is no built-in data"


def test_versions_are_compared_on_the_rows_of_lives_dataset_version_and_on_the_others(tmp_path: Path) -> None:
    first = made(tmp_path, write_csv(tmp_path / "a.csv", line_rows(150)))
    more = write_csv(tmp_path / "b.csv", line_rows(150, 150))
    second = made(tmp_path, more, parent=version(tmp_path, first))
    dataset, trained_on = file_of(tmp_path, second), file_of(tmp_path, first)
    train = Fit(
        model="line", config={"epochs": 1, "lr": 1e-9}, data=tmp_path, store=StoreLocation(tmp_path), job="k",
        attempt=1, device="cpu", tensorboard=False, dataset=dataset,
    )  # fmt: skip
    fitted = do(VALUES, train)[-1]
    assert isinstance(fitted, Fitted)
    path = tmp_path / "checkpoints/line" / f"{fitted.record.sha256[:12]}.pt"
    order = Evaluate(
        model="line", config=train.config, data=tmp_path, path=path, record=fitted.record,
        candidate=CheckpointFile(path=path, record=fitted.record), dataset=dataset, trained_on=trained_on,
    )  # fmt: skip
    found = do(VALUES, order)[-1]
    assert isinstance(found, Evaluated)
    assert found.pairs
    assert found.old
    assert found.new
    held_out = first.summary.examples["validation"], second.summary.examples["validation"]
    assert (found.old.rows, found.new.rows, found.pairs.rows) == (held_out[0], held_out[1] - held_out[0], held_out[1])
    gone = replace(trained_on, folder=tmp_path / "erased")
    for other in (None, dataset, gone):
        found = do(VALUES, replace(order, trained_on=other))[-1]
        assert isinstance(found, Evaluated)
        assert (found.pairs is None, found.old, found.new) == (False, None, None)


def test_a_refused_file_fails_with_its_report(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [*line_rows(3), ("bad", 1)])
    order = Ingest(model="line", store=StoreLocation(tmp_path / "s"), job="j", attempt=1, source=source, data=tmp_path)
    failed = do(VALUES, order)[-1]
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.title) == (FailureKind.DATASET, "Too many rows refused")
    assert failed.summary
    assert failed.summary.by_reason[0].first[0].value == "bad"
    failed = do(replace(VALUES, target=None), order)[-1]
    assert isinstance(failed, Failed)
    assert 'add target="label" or target="value" to training/line.py' in failed.detail


def test_better_decoding_reaches_old_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines_of(tmp_path)
    monkeypatch.setattr(opened, "cache_key", lambda *_: "other code")
    better = replace(LINE, preprocess=lambda entries: entries * 10)
    dataset = opened.opened("line", better, VALUES, file)
    assert torch.equal(dataset.train.targets, 2 * dataset.train.samples / 10 + 2)
    narrow = replace(LINE, check=lambda entries: {int(n): _refusal() for n in np.flatnonzero(entries[:, 0] < 100)})
    monkeypatch.setattr(opened, "cache_key", lambda *_: "stricter code")
    stricter = opened.opened("line", narrow, VALUES, file)
    assert sum(len(split) for split in (stricter.train, stricter.validation, stricter.test)) == 200


def _refusal() -> Any:
    from models.errors import InvalidInput  # noqa: PLC0415 - used here only

    return InvalidInput("Refused", "by newer code")


def test_an_original_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines_of(tmp_path)
    monkeypatch.setattr(opened, "cache_key", lambda *_: "other code")
    for path in (file.folder.parent / "originals").iterdir():
        path.unlink()
    with pytest.raises(
        TrainingError, match="own@1: the code that decodes its rows has changed, and its file is not kept"
    ):
        opened.opened("line", LINE, VALUES, file)


@pytest.mark.parametrize(
    ("spec", "recipe", "words"),
    [
        (LINE, replace(VALUES, target="label"), "own@1 has a value for each row, the recipe learns a label"),
        (replace(LINE, entry=replace(LINE.tensor, high=5.0)), VALUES, "the inputs of the model have changed"),
    ],
    ids=["target", "schema"],
)
def test_a_version_that_does_not_fit_the_model_is_refused(
    tmp_path: Path, spec: ModelSpec, recipe: Recipe[Any], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        opened.opened("line", spec, recipe, lines_of(tmp_path))


def test_a_version_without_held_out_rows_is_refused_for_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"own@1 has no rows in the (train|validation|test) split: let it grow"):
        opened.opened("line", LINE, VALUES, lines_of(tmp_path, count=2))
    file = lines_of(tmp_path)
    (file.folder / "manifest.json").write_text("{")
    with pytest.raises(TrainingError, match="the files of the dataset version are missing or damaged"):
        opened.opened("line", LINE, VALUES, file)


def test_the_key_of_the_cache_follows_the_code() -> None:
    assert cache_key("line", LINE) == cache_key("line", LINE)
    assert cache_key("mnist", LINE) != cache_key("line", LINE)


def test_the_built_in_training_rows_are_known_by_their_decoded_samples(tmp_path: Path) -> None:
    split = Split(torch.tensor([[3.0], [4.0]]), torch.zeros(2, 1))
    numbers = replace(VALUES, load=lambda *_: Dataset(name="n", train=split, validation=split, test=split))
    known, warnings = known_digests(LINE, numbers, {}, tmp_path)
    rows = [("x", "y", "split"), (3, 1, "test"), (4.0, 1, "test"), (5, 1, "test")]
    done = made(tmp_path, write_csv(tmp_path / "a.csv", rows), known=known)
    assert (done.summary.examples, warnings) == ({"train": 2, "validation": 0, "test": 1}, ())
    persons = [{"age": 22, "sex": "male", "fare": None}, {"age": 30, "sex": "female"}]
    named = Split(persons, torch.zeros(2, 1))
    tables = replace(VALUES, load=lambda *_: Dataset(name="n", train=named, validation=named, test=named))
    known, _ = known_digests(TABLE, tables, {}, tmp_path)
    table = [("age", "sex", "fare", "y", "split"), (22, "male", "", 1, "test"), (23, "male", "", 1, "test")]
    done = made(tmp_path, write_csv(tmp_path / "b.csv", table), TABLE, model="table", known=known)
    assert done.summary.examples == {"train": 1, "validation": 0, "test": 1}
    assert known_digests(LINE, VALUES, None, tmp_path) == (frozenset(), ())
