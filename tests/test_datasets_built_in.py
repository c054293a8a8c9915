"""Versions that grow from the data of the recipe, and rows that count several times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.catalog import specs
from models.checkpoints.location import DatasetFile, StoreLocation
from models.example_files import Example, write_examples
from models.messages import Ingest, Ingested
from models.spec import ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.opened import opened
from training.datasets.orders import ingested
from training.datasets.version import read_manifest
from training.recipe import Dataset, recipes

SPEC, RECIPE = specs()["classifier"], recipes()["classifier"]
POINTS = [[3.5, -3.0 + number / 10] for number in range(20)]
COUNTS = {"train": 200, "validation": 5_000, "test": 5_000}


def grown(store: Path, spec: ModelSpec = SPEC, weight: int = 1, label: str = "1") -> Ingested:
    """Grow the clouds of the recipe by points."""
    (store / "datasets/classifier").mkdir(parents=True, exist_ok=True)
    source = store / "points"
    options = write_examples(source, SPEC, [Example(np.array(point, np.float32), label) for point in POINTS])
    order = Ingest(
        model="classifier",
        store=StoreLocation(store),
        job="j",
        attempt=1,
        source=source,
        data=store,
        options=options,
        config=RECIPE.config().model_dump(mode="json"),
        from_built_in=True,
        weight=weight,
    )
    return ingested(order, spec, RECIPE, lambda *_: None)


def read(store: Path, made: Ingested) -> Dataset:
    file = DatasetFile(label="clouds@2", sha256=made.sha256, folder=store / made.folder)
    return opened("classifier", SPEC, RECIPE, file)


def test_a_version_has_the_splits_of_the_recipe_and_the_new_rows(tmp_path: Path) -> None:
    made = grown(tmp_path)
    assert (made.summary.added, made.summary.rejected, sum(made.summary.examples.values())) == (20, 0, 10_220)
    assert all(made.summary.examples[name] >= count for name, count in COUNTS.items())
    own, found = RECIPE.load(RECIPE.config(), tmp_path), read(tmp_path, made)
    for name, count in COUNTS.items():
        assert (getattr(found, name).samples[:count] == getattr(own, name).samples).all()
        assert (getattr(found, name).targets[:count] == getattr(own, name).targets).all()
    originals = read_manifest(tmp_path / made.folder).originals
    kept = {path.name for path in (tmp_path / "datasets/classifier/originals").iterdir()}
    assert {one.sha256 for one in originals} == kept
    assert not list((tmp_path / "datasets/classifier").glob(".draft-*"))


@pytest.mark.slow
def test_rows_are_repeated_in_the_train_split_only(tmp_path: Path) -> None:
    once, often = grown(tmp_path), grown(tmp_path, weight=50)
    assert once.sha256 != often.sha256
    assert once.summary.examples == often.summary.examples
    first, second = read(tmp_path, once), read(tmp_path, often)
    assert len(second.train) == 200 + 50 * (len(first.train) - 200)
    assert (len(second.validation), len(second.test)) == (len(first.validation), len(first.test))
    (new,) = (one for one in read_manifest(tmp_path / often.folder).originals if one.weight == 50)
    assert new.key == replace(new, weight=1).key


@pytest.mark.slow
def test_the_originals_are_enough_to_decode_all_rows_again(tmp_path: Path) -> None:
    made = grown(tmp_path)
    before = read(tmp_path, made)
    for path in (tmp_path / made.folder / "cache").rglob("*.npy"):
        path.unlink()
    for path in sorted((tmp_path / made.folder / "cache").rglob("*"), reverse=True):
        path.rmdir()
    assert (read(tmp_path, made).train.samples == before.train.samples).all()


def test_samples_that_are_no_entries_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        grown(tmp_path, replace(SPEC, preprocess=lambda entries: entries * 2))
    assert "send them as a dataset instead" in caught.value.detail
