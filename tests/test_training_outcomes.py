"""Outcomes of single examples, and their comparison."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from models.catalog import specs
from models.checkpoints.location import StoreLocation
from models.checkpoints.storage import Storage
from models.messages import (
    CheckpointFile,
    Evaluate,
    Evaluated,
    Fit,
    Fitted,
    Message,
    Pairs,
    decode_message,
    encode_message,
)
from training import outcomes
from training.executor import Executor
from training.metrics import classification, regression
from training.outcomes import evaluated, judge_of, paired, paired_apart
from training.recipe import Outcomes, Split, recipes
from training.run import Outcome, run


class Table(nn.Module):
    """Answers row i with row i of a table."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows))
        self.calls = 0

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Look the rows up: samples int64 (N,)."""
        self.calls += 1
        found: torch.Tensor = self.get_buffer("rows")[samples]
        return found


SPLIT = Split(torch.arange(4), torch.tensor([0, 1, 1, 0]))
LIVE = Table([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # right, wrong, right, wrong
CANDIDATE = Table([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])  # right, right, wrong, right


def test_right_and_wrong_answers_are_counted() -> None:
    found = paired(outcomes.labels(CANDIDATE, SPLIT), outcomes.labels(LIVE, SPLIT), higher_is_better=True)
    assert found == Pairs(rows=4, differ=3, candidate_right=2, live_right=1, mean_gain=0.25)


def test_different_answers_that_are_both_wrong_differ_and_favour_neither() -> None:
    first = Outcomes(torch.tensor([0.0, 1.0]), torch.tensor([2, 1]))
    second = Outcomes(torch.tensor([0.0, 1.0]), torch.tensor([3, 1]))
    assert paired(first, second, higher_is_better=True) == Pairs(
        rows=2, differ=1, candidate_right=0, live_right=0, mean_gain=0.0
    )


def test_answers_may_have_several_numbers() -> None:
    first = Outcomes(torch.tensor([1.0, 0.0]), torch.tensor([[1, 0], [1, 1]]))
    second = Outcomes(torch.tensor([1.0, 0.0]), torch.tensor([[1, 0], [1, 0]]))
    assert paired(first, second, higher_is_better=True).differ == 1


def test_errors_are_compared_by_their_mean_and_its_standard_error() -> None:
    first, second = Outcomes(torch.tensor([1.0, 2.0, 3.0])), Outcomes(torch.tensor([2.0, 4.0, 3.0]))
    found = paired(first, second, higher_is_better=False)
    assert (found.rows, found.differ, found.candidate_right, found.live_right) == (3, 2, 2, 0)
    assert found.mean_gain == 1.0
    assert found.standard_error == pytest.approx(1 / 3**0.5)


def test_old_and_new_examples_are_compared_apart() -> None:
    both = outcomes.labels(CANDIDATE, SPLIT), outcomes.labels(LIVE, SPLIT)
    is_old = torch.tensor([True, False, True, False])
    assert paired_apart(*both, is_old, higher_is_better=True) == (
        Pairs(rows=2, differ=1, candidate_right=0, live_right=1, mean_gain=-0.5),
        Pairs(rows=2, differ=2, candidate_right=2, live_right=0, mean_gain=1.0),
    )
    errors = Outcomes(both[0].scores + 1), Outcomes(both[1].scores + 1)
    _, new = paired_apart(*errors, torch.zeros(4, dtype=torch.bool), higher_is_better=True)
    assert new == paired(*errors, higher_is_better=True)
    assert paired_apart(*errors, torch.ones(4, dtype=torch.bool), higher_is_better=True)[1] is None
    for is_old_or_not in (None, torch.ones(3, dtype=torch.bool)):  # none, and outcomes of another number
        assert paired_apart(*both, is_old_or_not, higher_is_better=True) == (None, None)


def test_identical_errors_are_still_errors() -> None:
    scores = Outcomes(torch.tensor([0.25, 0.5]))
    assert paired(scores, scores, higher_is_better=False).standard_error == 0.0


def test_outcomes_have_the_metric_as_their_mean() -> None:
    targets = torch.tensor([[1.0], [0.0], [2.0], [5.0]])
    network = Table([[1.5], [0.0], [1.0], [3.0]])
    split = Split(torch.arange(4), targets)
    assert outcomes.squared_errors(network, split).scores.mean().item() == pytest.approx(
        regression(network, split)["mse"]
    )
    figures = classification(LIVE, SPLIT)
    assert outcomes.labels(LIVE, SPLIT).scores.mean().item() == figures["accuracy"]
    assert outcomes.cross_entropies(LIVE, SPLIT).scores.mean().item() == pytest.approx(figures["loss"])


def test_the_shipped_recipes_judge_single_examples() -> None:
    judges = {name: judge_of(recipe) for name, recipe in recipes().items() if name in {"mnist", "regressor"}}
    assert judges == {"mnist": outcomes.labels, "regressor": outcomes.squared_errors}


def test_a_recipe_has_its_own_judge_or_none() -> None:
    mnist = recipes()["mnist"]
    assert judge_of(replace(mnist, outcomes=outcomes.cross_entropies)) is outcomes.cross_entropies
    assert judge_of(replace(mnist, metric="calibration_error")) is None
    assert judge_of(replace(mnist, evaluate=lambda _network, _split: {"accuracy": 1.0})) is None


def test_figures_and_outcomes_take_one_pass() -> None:
    network = Table([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mnist = recipes()["mnist"]
    figures, found = evaluated(mnist, network, SPLIT)
    assert network.calls == 1
    assert figures == classification(network, SPLIT)
    assert found is not None
    assert found.scores.equal(outcomes.labels(network, SPLIT).scores)
    own = replace(mnist, outcomes=lambda _network, _split: Outcomes(torch.zeros(4)))
    assert evaluated(own, network, SPLIT) == (figures, None)


@pytest.mark.slow
def test_a_candidate_that_was_just_fitted_is_not_evaluated_again(tmp_path: Path) -> None:
    told: list[Message] = []
    executor = Executor(told.append, specs())
    live, config = trained(tmp_path, 1), recipes()["regressor"].config(epochs=3).model_dump(mode="json")
    executor.do(
        Fit(
            model="regressor",
            config=config,
            data=tmp_path,
            store=StoreLocation(tmp_path),
            job="j",
            attempt=1,
            device="cpu",
            tensorboard=False,
        )
    )
    fitted = told[-1]
    assert isinstance(fitted, Fitted)
    path = Storage(tmp_path).checkpoint("regressor", fitted.record.sha256)
    order = Evaluate(
        model="regressor",
        config=config,
        data=tmp_path,
        path=live.path,
        record=live.record,
        candidate=CheckpointFile(path=path, record=fitted.record),
    )
    Executor(told.append, specs()).do(order)  # reads the candidate's file
    path.unlink()
    executor.do(order)
    assert isinstance(told[-1], Evaluated)
    assert told[-1] == told[-2]


def test_an_evaluation_compares_the_candidate_with_the_checkpoint(tmp_path: Path) -> None:
    """Two runs of the regressor: the figures of both are those that the counts come from."""
    first, second = (trained(tmp_path, epochs) for epochs in (1, 100))
    told: list[Message] = []
    order = Evaluate(
        model="regressor",
        config={},
        data=tmp_path,
        path=first.path,
        record=first.record,
        candidate=CheckpointFile(path=second.path, record=second.record),
    )
    Executor(told.append, specs()).do(order)
    (answer,) = told
    assert isinstance(answer, Evaluated)
    assert answer.pairs is not None
    assert answer.pairs.rows == 5_000
    assert answer.pairs.candidate_right > 4_000
    gain = first.record.metrics["validation_mse"] - second.record.metrics["validation_mse"]
    assert answer.pairs.mean_gain == pytest.approx(gain, rel=1e-5)
    assert decode_message(encode_message(answer)) == answer


def trained(folder: Path, epochs: int) -> Outcome:
    recipe = recipes()["regressor"]
    config = recipe.config(epochs=epochs)
    return run("regressor", recipe, config, data=folder, folder=folder, report=lambda _: None, command="test")
