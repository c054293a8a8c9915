"""Training of models with named inputs: rows are encoded as requests are, artifacts belong to the checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.artifacts import unpack
from models.checkpoints import artifact_files
from models.checkpoints.location import StoreLocation
from models.messages import Adopt, Adopted, Evaluate, Evaluated, Failed, FailureKind, Message
from models.padding import WASTE
from models.spec import ModelSpec
from tests.signatures import HEADS, SERIES, TABLE, TEXT
from training import metrics
from training.executor import Executor
from training.loop import fit
from training.recipe import Dataset, Hyperparameters, Recipe, Report, Split, TrainingError
from training.rows import Coded, call, prepared
from training.run import Outcome, reopened, run

GOOD = ["good film", "not bad", "good", "a good good film"]
BAD = ["bad film", "not good", "bad", "a bad bad film"]
pytestmark = pytest.mark.usefixtures("one_thread")


class Config(Hyperparameters):
    """Hyperparameters of the tests."""

    epochs: int = 60
    batch_size: int = 4
    lr: float = 0.05


def reviews(_: Config, __: Path) -> Dataset:
    rows = [{"review": text} for text in [*GOOD, *BAD]]
    split = Split(rows, torch.tensor([1] * len(GOOD) + [0] * len(BAD)))
    return Dataset(name="reviews", train=split, validation=split, test=split)


def vocabulary(_: Config, dataset: Dataset) -> Mapping[str, Any]:
    words = {word for row in dataset.train.samples for word in row["review"].split()}
    return {"words": ["<unknown>", *sorted(words)], "labels": ("negative", "positive")}


def arguments(_: Config, artifacts: Mapping[str, Any]) -> dict[str, Any]:
    return {"words": len(artifacts["words"])}


def fit_classes(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    fit(
        network,
        dataset.train,
        config,
        report,
        loss=nn.functional.cross_entropy,
        measure=lambda network: {"accuracy": metrics.accuracy(network, dataset.validation)},
        samples_per_report=len(dataset.train),
    )


TEXTS = Recipe(
    config=Config,
    arguments=arguments,
    artifacts=vocabulary,
    load=reviews,
    fit=fit_classes,
    evaluate=metrics.classification,
    metric="accuracy",
    higher_is_better=True,
)


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, ModelSpec]:
    found = {"text": TEXT, "table": TABLE}
    monkeypatch.setattr("training.run.specs", lambda: found)
    return found


def trained(folder: Path, recipe: Recipe[Any] = TEXTS, **values: Any) -> Outcome:
    config = recipe.config(**values)
    return run("text", recipe, config, data=folder, folder=folder, report=lambda _: None, command="a test")


def test_a_vocabulary_made_of_the_training_rows_travels_in_the_record(
    specs: Mapping[str, ModelSpec], tmp_path: Path
) -> None:
    outcome = trained(tmp_path)
    artifacts = unpack(outcome.record.artifacts)
    assert artifacts["words"] == ["<unknown>", "a", "bad", "film", "good", "not"]
    assert artifacts["labels"] == ["negative", "positive"]
    assert outcome.record.arguments == {"words": 6}
    assert outcome.record.metrics["accuracy"] > 0.7  # a bag of words does not see "not"
    assert isinstance(outcome.dataset.train.samples, Coded)
    assert outcome.rows.train.samples[0] == {"review": "good film"}


def test_the_same_seed_gives_the_same_bits(specs: Mapping[str, ModelSpec], tmp_path: Path) -> None:
    first, second = (trained(tmp_path / str(number), epochs=3).record for number in (1, 2))
    assert first.sha256 == second.sha256
    assert trained(tmp_path / "3", epochs=3, seed=1).record.sha256 != first.sha256


def test_a_checkpoint_is_evaluated_with_its_own_artifacts(specs: Mapping[str, ModelSpec], tmp_path: Path) -> None:
    """The order of the words differs from that of a vocabulary made today; so would its answers."""

    def reversed_words(config: Config, dataset: Dataset) -> Mapping[str, Any]:
        artifacts = vocabulary(config, dataset)
        return {**artifacts, "words": ["<unknown>", *artifacts["words"][:0:-1]]}

    old = trained(tmp_path / "old", replace(TEXTS, artifacts=reversed_words))
    trained(tmp_path / "new")
    told: list[Message] = []
    executor = Executor(told.append, specs, lambda: {"text": TEXTS})
    order = Evaluate(model="text", config={}, data=tmp_path, path=old.path, record=old.record)
    for _ in range(2):  # the second one from the datasets that are kept
        executor.do(order)
    for message in told:
        assert isinstance(message, Evaluated)
        assert message.metrics["accuracy"] == old.record.metrics["accuracy"]
        assert message.metrics["loss"] == pytest.approx(old.record.metrics["loss"])


def test_a_row_that_the_spec_refuses_stops_the_run_and_is_named(specs: Mapping[str, ModelSpec], tmp_path: Path) -> None:
    def load(config: Config, folder: Path) -> Dataset:
        dataset = reviews(config, folder)
        rows = [*dataset.train.samples[:2], {"review": 5}]
        return replace(dataset, train=Split(rows, torch.zeros(3, dtype=torch.int64)))

    with pytest.raises(
        TrainingError, match=r"row 2 of the train split is refused: Wrong value: review: 5 is not a text"
    ):
        trained(tmp_path, replace(TEXTS, load=load, artifacts=lambda *_: {"words": ["<unknown>"]}))
    assert not list(tmp_path.iterdir())


def test_a_split_without_rows_is_an_error() -> None:
    empty = Split([], torch.zeros(0))
    with pytest.raises(TrainingError, match="the train split has no rows"):
        prepared(TABLE, Dataset(name="none", train=empty, validation=empty, test=empty), {})


def with_many_words(config: Config, dataset: Dataset) -> Mapping[str, Any]:
    """Return the vocabulary, and what makes it too large for the record."""
    return {**vocabulary(config, dataset), "vectors": np.ones(1_200_000, np.float32)}


def test_a_run_writes_large_artifacts_beside_its_checkpoint(specs: Mapping[str, ModelSpec], tmp_path: Path) -> None:
    recipe = replace(TEXTS, artifacts=with_many_words)
    outcome = trained(tmp_path, recipe)
    (name,) = artifact_files.names(outcome.record)
    assert {path.name for path in tmp_path.iterdir()} == {outcome.path.name, f"{outcome.path.stem}.json", name}
    _, record, dataset = reopened("text", recipe, outcome.path, tmp_path)
    assert len(dataset.test.samples) == len(outcome.dataset.test.samples)
    assert artifact_files.load(record.artifacts, tmp_path)["vectors"].sum() == 1_200_000
    told: list[Message] = []
    executor = Executor(told.append, specs, lambda: {"text": recipe})
    order = Evaluate(model="text", config={}, data=tmp_path, path=outcome.path, record=outcome.record)
    executor.do(order)
    (tmp_path / name).unlink()
    executor.do(order)
    good, bad = told
    assert isinstance(good, Evaluated)
    assert good.metrics["accuracy"] == outcome.record.metrics["accuracy"]
    assert isinstance(bad, Failed)
    assert bad.kind is FailureKind.CHECKPOINT
    assert bad.detail.startswith(f"{name}, the file of the artifact vectors")
    with pytest.raises(TrainingError, match="the file of the artifact vectors, cannot be read"):
        reopened("text", recipe, outcome.path, tmp_path)


def test_weights_alone_are_refused_if_the_recipe_makes_artifacts(
    specs: Mapping[str, ModelSpec], tmp_path: Path
) -> None:
    """Even if the functions of the spec have values for missing artifacts: the answers would be wrong."""
    outcome = trained(tmp_path, TEXTS)
    order = Adopt(model="text", path=outcome.path, arguments=outcome.record.arguments, store=StoreLocation(tmp_path))
    told: list[Message] = []
    for recipe in (TEXTS, replace(TEXTS, artifacts=None)):
        Executor(told.append, specs, partial(dict, text=recipe)).do(order)
    refused, taken = told
    assert isinstance(refused, Failed)
    assert refused.kind is FailureKind.CHECKPOINT
    assert "needs artifacts, which a state_dict file does not carry (without them, it answers wrong" in refused.detail
    assert isinstance(taken, Adopted)


def test_artifacts_that_cannot_travel_stop_the_run(specs: Mapping[str, ModelSpec], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the artifact words is of type set"):
        trained(tmp_path, replace(TEXTS, artifacts=lambda *_: {"words": {"a"}}))


def test_an_evaluation_of_rows_that_the_checkpoint_refuses_fails_with_words(
    specs: Mapping[str, ModelSpec], tmp_path: Path
) -> None:
    outcome = trained(tmp_path, epochs=1)
    told: list[Message] = []
    longer = replace(TEXTS, load=lambda *_: _too_long())
    order = Evaluate(model="text", config={}, data=tmp_path, path=outcome.path, record=outcome.record)
    Executor(told.append, specs, lambda: {"text": longer}).do(order)
    (failed,) = told
    assert isinstance(failed, Failed)
    assert "at most 200 are allowed" in failed.detail


def _too_long() -> Dataset:
    split = Split([{"review": "x" * 300}], torch.zeros(1, dtype=torch.int64))
    return Dataset(name="long", train=split, validation=split, test=split)


def test_batches_of_ragged_rows_are_padded_for_each_batch() -> None:
    rows = [{"series": torch.full((length, 2), float(length)).numpy()} for length in (1, 4, 2)]
    split = Split(rows, torch.zeros(3))
    samples = prepared(SERIES, Dataset(name="x", train=split, validation=split, test=split), {}).train.samples
    assert len(samples) == 3
    keywords = samples.index_select(0, torch.tensor([2, 0])).to("cpu").keywords()
    assert keywords["series"].shape == (2, 2, 2)
    assert keywords["lengths"].tolist() == [2, 1]
    assert [len(part) for part in samples.split(2)] == [2, 1]
    assert len(samples[:2]) == 2
    assert WASTE >= 1


def test_a_network_of_two_outputs_is_fitted_with_a_loss_of_both() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 3, generator=generator).clamp(-5, 5)
    targets = torch.stack([(points[:, 0] > 0).float(), points.sum(dim=1)], dim=1)
    split = Split([{"samples": point.numpy()} for point in points], targets)
    dataset = prepared(HEADS, Dataset(name="heads", train=split, validation=split, test=split), {})

    def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        kinds, sizes = outputs
        wrong = nn.functional.cross_entropy(kinds, targets[:, 0].long())
        return wrong + nn.functional.mse_loss(sizes, targets[:, 1])

    def measure(network: nn.Module) -> Mapping[str, float]:
        _, sizes = metrics.all_outputs(network, dataset.test.samples)
        return {"mse": nn.functional.mse_loss(sizes, dataset.test.targets[:, 1]).item()}

    torch.manual_seed(0)
    network = HEADS.network()
    told: list[Any] = []
    config = Config(epochs=30)
    fit(network, dataset.train, config, told.append, loss=loss, measure=measure, samples_per_report=60)
    assert told[-1].metrics["mse"] < 0.1 * told[0].metrics["mse"]


def test_dictionaries_of_outputs_are_taken_by_name() -> None:
    class Named(nn.Module):
        def forward(self, samples: Tensor) -> dict[str, Tensor]:
            return {"second": samples + 1, "first": samples}

    first, second = metrics.all_outputs(Named(), torch.zeros(3, 1), ["first", "second"])
    assert (first.sum().item(), second.sum().item()) == (0, 3)
    assert call(nn.Identity(), torch.ones(2)).tolist() == [1, 1]
