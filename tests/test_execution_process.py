"""The process that fits, spoken to as the worker does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.catalog import PRETRAINED
from models.checkpoints.record import Record
from service.execution.process import Child

pytestmark = pytest.mark.slow


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.stop()


def last(child: Child) -> Any:
    """The word that ends an order."""
    while child.exit is None:
        for message in child.messages(60):
            if message["kind"] != "progress":
                return message
    return None


def order(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "op": "fit", "model": "regressor", "config": {"epochs": 30}, "data": str(tmp_path), "store": str(tmp_path),
        "job": "j1", "attempt": 1, "history": [], "device": "cpu", "tensorboard": False, **changes,
    }  # fmt: skip


def test_orders_are_done_one_after_the_other_by_one_process(child: Child, tmp_path: Path) -> None:
    child.send(order(tmp_path, model="nope"))
    assert "no recipe for nope" in last(child)["detail"]
    child.send(order(tmp_path, config={"epochs": 0}))
    assert last(child)["title"] == "Invalid hyperparameters"
    child.send(order(tmp_path, data=None))
    failed = last(child)
    assert failed["title"] == "Recipe failed"
    assert failed["detail"] == "the recipe raised TypeError; the worker's log holds the trace"

    child.send(order(tmp_path))
    fitted = last(child)
    record = Record(**fitted["record"])
    assert (fitted["metric"], fitted["higher_is_better"]) == ("mse", False)
    assert (tmp_path / fitted["path"]).name == f"{record.sha256[:12]}.pt"
    assert (tmp_path / "jobs" / "j1" / "plot.png").read_bytes().startswith(b"\x89PNG")

    evaluate = {"op": "evaluate", "path": str(tmp_path / fitted["path"]), "record": fitted["record"]}
    child.send(order(tmp_path, **evaluate))
    again = last(child)
    assert again["metrics"] == record.metrics
    assert again["dataset"] == record.dataset

    child.send(order(tmp_path, **{**evaluate, "path": str(PRETRAINED / "classifier.pt")}))
    assert "sha256" in last(child)["detail"]
    assert child.exit is None


def test_a_stopped_child_leaves_nothing_half_written(child: Child, tmp_path: Path) -> None:
    child.send(order(tmp_path, config={"epochs": 10_000}))
    while not any(message["kind"] == "progress" for message in child.messages(60)):
        assert child.exit is None
    child.stop()
    while child.exit is None:
        child.messages(60)
    assert child.exit == 143
    assert not list((tmp_path / "checkpoints").rglob("*.*"))
