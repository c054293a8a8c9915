"""Failures of orders: each names its kind and the action that failed."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.location import StoreLocation
from models.checkpoints.record import Record
from models.messages import Adopt, AnyOrder, Evaluate, Explain, Export, Failed, FailureKind, Fit, Message
from models.spec import by_name
from tests.fakes import LINE, save_line
from training.executor import Executor
from training.recipe import Recipe, recipes

RECORD = Record(model="regressor", sha256="0")
FILE = Path("/nowhere/in/particular")
FIT = Fit(
    model="regressor", config={}, data=FILE, store=StoreLocation(FILE), job="j", attempt=1, device="cpu",
    tensorboard=False,
)  # fmt: skip
UNEXPECTED: list[tuple[AnyOrder, str]] = [
    (FIT, "the recipe raised ZeroDivisionError; the worker's log holds the trace"),
    (
        Evaluate(model="regressor", config={}, data=FILE, path=FILE, record=RECORD),
        "the evaluation of the checkpoint raised ZeroDivisionError; the log holds the trace",
    ),
    (Adopt(model="x", path=FILE, arguments={}, store=StoreLocation(FILE)), "the check of the upload raised KeyError"),
    (
        Export(model="x", path=FILE, record=RECORD, store=StoreLocation(FILE)),
        "the export of the checkpoint raised KeyError",
    ),
    (
        Explain(model="x", path=FILE, record=RECORD, samples=np.ones((1, 1)), method="gradient"),
        "the explanation raised KeyError",
    ),
]


def broken(*_: object) -> Any:
    raise ZeroDivisionError(f"in {FILE}")


def broken_recipes() -> Mapping[str, Recipe[Any]]:
    return {"regressor": replace(recipes()["regressor"], load=broken)}


def failure(order: AnyOrder) -> Failed:
    told: list[Message] = []
    Executor(told.append, {"line": LINE}, broken_recipes).do(order)
    (message,) = told
    assert isinstance(message, Failed)
    return message


@pytest.mark.parametrize(("order", "words"), UNEXPECTED, ids=lambda value: getattr(value, "type", ""))
def test_an_unexpected_exception_names_the_action_and_no_path(order: AnyOrder, words: str, tmp_path: Path) -> None:
    failed = failure(replace(order, store=StoreLocation(tmp_path)) if isinstance(order, Fit) else order)
    assert failed.kind is FailureKind.UNEXPECTED
    assert failed.detail.startswith(words)
    assert "particular" not in failed.detail
    assert "recipe" not in failed.detail or isinstance(order, Fit)


def test_a_failure_has_a_kind_that_tells_its_cause(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    export = Export(model="line", path=path, record=RECORD, store=StoreLocation(tmp_path))
    assert failure(export).kind is FailureKind.CHECKPOINT
    assert failure(replace(FIT, model="x")).kind is FailureKind.TRAINING
    assert failure(replace(FIT, config={"epochs": 0})).kind is FailureKind.HYPERPARAMETERS
    (tmp_path / "checkpoints").write_text("in the way")
    assert (
        failure(Adopt(model="line", path=path, arguments={}, store=StoreLocation(tmp_path))).kind is FailureKind.STORE
    )


@pytest.mark.parametrize(
    "name", ["models.networks:Perceptorn", "models.netwroks:Perceptron", "models.networks", ":", "models.networks:"]
)
def test_a_network_that_the_spec_names_wrongly_is_named_and_no_recipe(name: str, tmp_path: Path) -> None:
    path = save_line(tmp_path, "regressor")
    specs = {"regressor": replace(LINE, network=by_name(name))}
    told: list[Message] = []
    executor = Executor(told.append, specs, recipes)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    record = Record(model="regressor", sha256=sha256)
    executor.do(Adopt(model="regressor", path=path, arguments={}, store=StoreLocation(tmp_path)))
    executor.do(Evaluate(model="regressor", config={}, data=tmp_path, path=path, record=record))
    executor.do(Export(model="regressor", path=path, record=record, store=StoreLocation(tmp_path)))
    executor.do(Explain(model="regressor", path=path, record=record, samples=np.ones((1, 1)), method="gradient"))
    assert len(told) == 4
    for failed in told:
        assert isinstance(failed, Failed)
        assert failed.kind is FailureKind.CHECKPOINT
        assert f'correct by_name("{name if ":" in name else name + ":"}") in tests/' in failed.detail
        assert "recipe" not in failed.title + failed.detail
