"""The contract checks find what breaks the contract, and say what to change."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from models.catalog import specs
from models.contract import Check, fault_of
from service import check as of_specs
from tests.fakes import LINE, ROOT, Line
from tests.signatures import SIGNATURES, Bag, Table
from training import check as of_recipes
from training.recipe import Cancelled, Dataset, Hyperparameters, Recipe, Report, Split, TrainingError, recipes

pytestmark = pytest.mark.usefixtures("one_thread")


class Centred(Line):
    """Subtracts the mean of the batch."""

    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples) - samples.mean()


class Moody(Line):
    """Adds a number that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.mood = torch.rand(1)

    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples) + self.mood


class Root(Line):
    """NaN for negative numbers."""

    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples.sqrt())


FINITE = "finite answers that are the same alone and in company"


def faults_of_spec(**changes: Any) -> dict[str, str]:
    found = {check.promise: fault_of(check, "line", replace(LINE, **changes)) for check in of_specs.CHECKS}
    return {promise: fault for promise, fault in found.items() if fault}


def test_a_good_spec_has_no_fault() -> None:
    assert not faults_of_spec()


@pytest.mark.parametrize(
    ("changes", "promise", "words"),
    [
        (
            {"postprocess": lambda rows: rows.astype(float)},
            "predictions have",
            "float64 (1, 1); it must return float32 (N, k)",
        ),
        (
            {"postprocess": lambda rows: rows[:0]},
            "predictions have",
            "returns float32 (0, 1) for a batch of 1",
        ),
        ({"describe": lambda _: []}, "predictions have", "describe returns 0 predictions for 1 samples"),
        (
            {"describe": lambda _: [{"value": "x"}]},
            "predictions have",
            "describe does not return Value: value: Input",
        ),
        (
            {"describe": lambda _: [{"value": 1.0, "a": 1}]},
            "predictions have",
            "Value has no a, which describe",
        ),
        ({"describe": lambda _: 1 // 0}, "predictions have", "ZeroDivisionError: integer division"),
        (
            {"network": Centred, "example": np.array([[1.0], [3.0]], dtype=np.float32)},
            "a sample has",
            "an answer changes with the other samples of its batch",
        ),
        ({"network": Moody}, "the state dict", "a reloaded network gives another answer"),
    ],
)
def test_a_fault_of_a_spec_is_named(changes: dict[str, Any], promise: str, words: str) -> None:
    (fault,) = [fault for name, fault in faults_of_spec(**changes).items() if name.startswith(promise)]
    assert words in fault


def test_an_activation_that_gives_no_finite_answer_is_named() -> None:
    class Choosy(Line):
        def __init__(self, *, activation: str = "relu") -> None:
            super().__init__(slope=float("nan") if activation == "tanh" else 1.0)

    assert "with activation=tanh" in faults_of_spec(network=Choosy)["every activation builds a network"]


@pytest.mark.parametrize(
    "wrong", [lambda rows: {"x": rows}, lambda rows: {"x": rows.tolist()}, lambda rows: {"x": rows[:0, 0]}]
)
def test_features_are_one_number_for_each_sample(wrong: Callable[[Any], Any]) -> None:
    faults = faults_of_spec(features=wrong)
    assert "the feature x is not one number" in faults["each sample has one number for each feature"]
    assert not faults_of_spec(features=lambda rows: {"x": rows[:, 0]})


class Blind(Bag):
    """Takes the mean over the padding, too."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return super().forward(ids, torch.ones_like(mask))


class Logarithm(Table):
    """Infinite at one bound of an input."""

    def forward(self, age: Tensor, sex: Tensor, fare: Tensor) -> Tensor:
        return super().forward(age.log(), sex, fare)


@pytest.mark.parametrize(
    ("name", "changes", "promise", "words"),
    [
        ("text", {"network": Blind}, "a sample has", "honour the mask or the lengths of padded arrays"),
        ("text", {"network": Blind}, "random samples", "an answer changes with the other samples of its batch"),
        ("table", {"network": Logarithm}, "random samples", "within the bounds of the inputs: narrow them"),
        ("series", {"postprocess": lambda rows: rows[:, 0]}, "predictions have", "it must return float32 (N, k)"),
        (
            "heads",
            {"postprocess": lambda outputs: {**outputs, "size": outputs["size"].astype(int)}},
            "predictions have",
            "the output size is int64 [] for a sample instead of float32 []",
        ),
        ("text", {"example": [{"review": " "}]}, "the example is", "review: the text has no words"),
    ],
)
def test_a_fault_of_a_spec_of_named_inputs_is_named(
    name: str, changes: dict[str, Any], promise: str, words: str
) -> None:
    spec = replace(SIGNATURES[name], **changes)
    (check,) = [check for check in of_specs.CHECKS if check.promise.startswith(promise)]
    assert words in fault_of(check, name, spec)


def test_numbers_within_the_bounds_of_entry_that_have_no_finite_answer_are_named() -> None:
    fault = faults_of_spec(network=Root, entry=replace(LINE.tensor, low=-1, high=9))["random samples have " + FINITE]
    assert "within the bounds of entry: narrow them" in fault


REGRESSOR: Recipe[Any] = recipes()["regressor"]
Config: type[Hyperparameters] = REGRESSOR.config


class NoDefault(Config):  # type: ignore[valid-type, misc]
    width: int = Field(description="width")


class NoMeaning(Config):  # type: ignore[valid-type, misc]
    width: int = 3


class BadDefault(Config):  # type: ignore[valid-type, misc]
    width: int = Field(3, ge=4, description="width")


class Unbounded(Config):  # type: ignore[valid-type, misc]
    width: float | str = Field(3, description="width")


class Open(Config, extra="ignore"):  # type: ignore[valid-type, misc, call-arg]
    pass


def silent(network: nn.Module, dataset: Dataset, config: Any, report: Report) -> None:
    """Trains without a report."""
    REGRESSOR.fit(network, dataset, config, lambda _: None)


def deaf(network: nn.Module, dataset: Dataset, config: Any, report: Report) -> None:
    """Goes on when it is cancelled."""

    def heard(progress: Any) -> None:
        with contextlib.suppress(Cancelled, KeyboardInterrupt):
            report(progress)

    REGRESSOR.fit(network, dataset, config, heard)


def unseeded(network: nn.Module, dataset: Dataset, config: Any, report: Report) -> None:
    """Ends with random weights."""
    REGRESSOR.fit(network, dataset, config, report)
    nn.init.constant_(next(network.parameters()), float(np.random.default_rng().random()))


def rising(network: nn.Module, dataset: Dataset, config: Any, report: Report) -> None:
    """Reports a loss that rises."""
    seen: list[float] = []

    def turned(progress: Any) -> None:
        seen.append(progress.loss)
        report(replace(progress, loss=float(len(seen))))

    REGRESSOR.fit(network, dataset, config, turned)


def vague(network: nn.Module, split: Split) -> dict[str, float]:
    return {"mse": float(np.random.default_rng().random())}


def stopped(*_: Any) -> None:
    raise TrainingError("it does not work")


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"config": NoDefault}, of_recipes.every_hyperparameter_has_a_default_and_a_meaning, "width has no default"),
        ({"config": NoMeaning}, of_recipes.every_hyperparameter_has_a_default_and_a_meaning, "width has no desc"),
        ({"config": BadDefault}, of_recipes.the_defaults_are_within_their_own_bounds, "out of its bounds: width"),
        ({"config": Unbounded}, of_recipes.values_out_of_bounds_are_refused, "width='nonsense' is accepted"),
        ({"config": Open}, of_recipes.an_unknown_hyperparameter_is_refused, "Config accepts unknown fields"),
        ({"presets": {"a": {"lr": 0.5}}}, of_recipes.every_preset_is_within_the_bounds, "the preset a repeats"),
        ({"fit": silent}, of_recipes.the_loss_falls_and_the_last_report_is_the_end, "fit made no report"),
        ({"fit": rising}, of_recipes.the_loss_falls_and_the_last_report_is_the_end, "the loss went from 1 to 5"),
        (
            {"fit": deaf},
            of_recipes.a_report_that_raises_ends_the_run_at_once_and_leaves_no_file,
            "fit swallows the exceptions of report",
        ),
        ({"fit": unseeded}, of_recipes.the_same_seed_gives_the_same_bits, "two runs with the same seed differ"),
        ({"evaluate": vague}, of_recipes.the_figures_are_those_of_the_reloaded_file, "evaluate gives other figures"),
        (
            {"fit": stopped},
            of_recipes.weights_that_are_not_finite_stop_the_run_and_name_the_learning_rate,
            "names no lr: it does not work",
        ),
    ],
)
def test_a_fault_of_a_recipe_is_named(changes: dict[str, Any], check: Callable[..., None], words: str) -> None:
    fault = fault_of(Check("a promise", check), "regressor", replace(REGRESSOR, **changes))
    assert words in fault


def test_a_trained_network_that_cannot_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wordless = replace(specs()["regressor"], describe=lambda _: [])
    for module in ("training.check", "training.run"):
        monkeypatch.setattr(f"{module}.specs", lambda: {"regressor": wordless})
    check = Check("a promise", of_recipes.the_trained_network_answers_with_the_artifacts_of_its_run)
    assert "describe returns 0 predictions for 2 samples" in fault_of(check, "regressor", REGRESSOR)


FILES = """
import csv
from pathlib import Path
import torch
from training import metrics, regressor
from training.recipe import Dataset, Recipe, Split, TrainingError


def fixture(folder: Path) -> dict[str, int]:
    (folder / "points.csv").write_text("".join(f"{i / 10},{i / 5}\\n" for i in range(30)))
    return {"epochs": 3}


def load(_config: regressor.Config, folder: Path) -> Dataset:
    if not (folder / "points.csv").exists():
        raise TrainingError("points.csv is not in the data folder")
    rows = torch.tensor([[float(cell) for cell in row] for row in csv.reader((folder / "points.csv").open())])
    split = Split(rows[:, :1], rows[:, 1:])
    return Dataset(name="points", train=split, validation=split, test=split)


RECIPE = Recipe(
    config=regressor.Config, arguments=regressor.arguments, load=load, fit=regressor.fit_network,
    evaluate=metrics.regression, metric="mse", higher_is_better=False, fixture=fixture,
)
"""


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.command", "check", "--project", str(folder), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with the model `points`, whose recipe reads a file."""
    for package in ("models", "training"):
        (tmp_path / package).mkdir()
    (tmp_path / "models" / "points.py").write_text("from models.regressor import SPEC as SPEC\n")
    (tmp_path / "training" / "points.py").write_text(FILES)
    return tmp_path


@pytest.mark.slow
def test_a_recipe_that_reads_files_is_checked_on_its_fixture(folder: Path) -> None:
    done = check(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stdout.count("  ok  ") == len(of_specs.CHECKS) + len(of_recipes.CHECKS)
    assert done.stdout.splitlines()[-1] == "training: 1 checked, 0 with a fault"


@pytest.mark.slow
def test_a_failed_check_and_a_file_that_was_left_aside_are_named_with_status_1(folder: Path) -> None:
    (folder / "training" / "points.py").write_text(FILES.replace("fit=regressor.fit_network", "fit=lambda *_: None"))
    (folder / "models" / "broken.py").write_text("SPEC = nosuchname\n")
    done = check(folder)
    assert done.returncode == 1
    assert "fit made no report: call report" in done.stdout
    assert "models: 2 checked, 1 with a fault" in done.stdout
    assert "training: 1 checked, 1 with a fault" in done.stdout
    assert "Traceback" in done.stderr
    assert f'{folder / "models" / "broken.py"}", line 1' in done.stderr


@pytest.mark.slow
def test_only_the_named_models_are_checked_and_an_unknown_one_is_named(folder: Path) -> None:
    done = check(folder, "nosuch")
    assert done.returncode == 2
    assert "there is no models/nosuch.py; there are classifier, mnist, points, regressor" in done.stderr
    done = check(folder, "points", "regressor")
    assert "models: 2 checked, 0 with a fault" in done.stdout
