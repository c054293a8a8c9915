"""The torch subprocess, given orders as the worker gives them."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from models.catalog import PRETRAINED
from models.checkpoints.location import StoreLocation
from models.checkpoints.storage import Storage
from models.messages import (
    Adopt,
    Evaluate,
    Evaluated,
    ExportDone,
    Failed,
    FailureKind,
    Fit,
    Fitted,
    Progressed,
    encode_message,
)
from service.execution.process import Child, read_messages

ANSWER_S = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.stop()


def fit(tmp_path: Path) -> Fit:
    return Fit(
        model="regressor",
        config={"epochs": 30},
        data=tmp_path,
        store=StoreLocation(tmp_path),
        job="j1",
        attempt=1,
        device="cpu",
        tensorboard=False,
    )


def test_orders_are_done_one_after_the_other_by_one_process(child: Child, tmp_path: Path) -> None:
    order = fit(tmp_path)
    failed = child.ask(replace(order, model="nope"), ANSWER_S)
    assert isinstance(failed, Failed)
    assert failed.kind is FailureKind.TRAINING
    assert "no recipe for nope" in failed.detail
    failed = child.ask(replace(order, config={"epochs": 0}), ANSWER_S)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.title) == (FailureKind.HYPERPARAMETERS, "Invalid hyperparameters")
    refused = child.ask(Adopt(model="nope", path=tmp_path, arguments={}, store=StoreLocation(tmp_path)), ANSWER_S)
    assert isinstance(refused, Failed)
    assert refused.kind is FailureKind.UNEXPECTED
    assert refused.detail == "the check of the upload raised KeyError; the log holds the trace"

    fitted = child.ask(order, ANSWER_S)
    assert isinstance(fitted, Fitted)
    record = fitted.record
    assert (fitted.metric, fitted.higher_is_better) == ("mse", False)
    path = tmp_path / "checkpoints" / "regressor" / f"{record.sha256[:12]}.pt"
    assert path == Storage(tmp_path).checkpoint("regressor", record.sha256)
    assert path.exists()
    assert (tmp_path / "jobs" / "j1" / "plot.png").read_bytes().startswith(b"\x89PNG")

    evaluate = Evaluate(model="regressor", config=order.config, data=tmp_path, path=path, record=record)
    again = child.ask(evaluate, ANSWER_S)
    assert isinstance(again, Evaluated)
    assert again.metrics == record.metrics
    assert again.dataset == record.dataset

    broken = child.ask(replace(evaluate, path=PRETRAINED / "classifier.pt"), ANSWER_S)
    assert isinstance(broken, Failed)
    assert broken.kind is FailureKind.CHECKPOINT
    assert "sha256" in broken.detail
    assert child.exit is None


def test_a_stopped_child_leaves_nothing_half_written(child: Child, tmp_path: Path) -> None:
    child.send(replace(fit(tmp_path), config={"epochs": 10_000}))
    while not any(isinstance(message, Progressed) for message in child.messages(60)):
        assert child.exit is None
    child.stop()
    while child.exit is None:
        child.messages(60)
    assert child.exit == 143
    assert not list((tmp_path / "checkpoints").rglob("*.*"))


def test_lines_that_are_no_messages_are_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    noise = (
        b'loss 0.3\n\n\xff\xfe\n5\nnull\n{"type": "fitted"}\n{"type": "other"}\n{"type": "progressed", "point": 1}\n'
    )
    stream = io.BytesIO(noise + encode_message(ExportDone()) + b"\ncut off")
    with caplog.at_level(logging.WARNING):
        assert list(read_messages(stream)) == [ExportDone()]
    assert len(caplog.records) == 8


def test_the_subprocess_inherits_no_key_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLOOP_API_KEYS", "admin:SECRET")
    monkeypatch.setenv("TORCHLOOP_KEY", "SECRET")
    monkeypatch.setenv("TORCHLOOP_DATABASE_URL", "postgresql+psycopg://u:SECRET@h/d")
    monkeypatch.setenv("TORCHLOOP_DATA", "kept")
    before = set(psutil.Process().children())
    child = Child()
    (process,) = set(psutil.Process().children()) - before
    environ = process.environ()
    child.stop()
    assert "SECRET" not in str(environ)
    assert environ["TORCHLOOP_DATA"] == "kept"


def test_an_order_that_cannot_be_read_ends_the_subprocess_with_a_trace() -> None:
    command = [sys.executable, "-m", "training.process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stderr
        child.stdin.write(b"{}\n")
        child.stdin.flush()
        words = child.stderr.read()  # its end, though the input goes on
    assert child.returncode == 1
    assert b"Traceback" in words
