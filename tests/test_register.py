"""Checkpoints that were trained offline become versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from service.delivery.registry import Registry
from service.store.database import Store
from tests.fakes import ROOT

pytestmark = pytest.mark.slow


def run(store: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    environ["TORCHLOOP_STORE"] = str(store)
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def versions(store: Path, model: str) -> list[dict[str, object]]:
    opened = Store(store)
    try:
        return [dict(version.record) for version in Registry(opened).versions(model)]
    finally:
        opened.close()


def test_register_makes_an_offline_run_a_version_that_is_not_live(tmp_path: Path) -> None:
    done = run(tmp_path, "training", "regressor", "--epochs", "20", "--register")
    assert done.returncode == 0, done.stderr
    assert "registered version 1 of regressor" in done.stdout
    (record,) = versions(tmp_path, "regressor")
    assert record["command"] == "python -m training regressor --epochs 20"
    store = Store(tmp_path)
    assert Registry(store).live() == {}
    store.close()


def test_a_checkpoint_from_elsewhere_is_copied_into_the_store(tmp_path: Path) -> None:
    shipped = ROOT / "models" / "pretrained" / "mnist.pt"
    assert run(tmp_path, "service.register", "mnist", str(shipped)).returncode == 0
    (copy,) = (tmp_path / "checkpoints" / "mnist").glob("*.pt")
    assert copy.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize(("model", "words"), [("regressor", "is a checkpoint of mnist"), ("classifier", "mnist")])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, model: str, words: str) -> None:
    done = run(tmp_path, "service.register", model, str(ROOT / "models" / "pretrained" / "mnist.pt"))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_conversions_are_said_and_kept_in_the_record(tmp_path: Path) -> None:
    state = torch.load(ROOT / "models" / "pretrained" / "regressor.pt", weights_only=True)
    torch.save({f"module.{key}": tensor.half() for key, tensor in state.items()}, tmp_path / "half.pt")
    done = run(tmp_path / "store", "service.register", "regressor", str(tmp_path / "half.pt"))
    assert done.returncode == 0, done.stderr
    notes = ["prefix module. removed from the keys", "float16 cast to float32: 4 tensors"]
    assert done.stdout.splitlines()[:2] == notes
    (record,) = versions(tmp_path / "store", "regressor")
    assert record["notes"] == notes


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    done = run(tmp_path / "store", "service.register", "mnist", str(ROOT / "models" / "pretrained" / "mnist.pt"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "TORCHLOOP_STORE: this is not a folder" in done.stderr


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    done = run(tmp_path, "service.register", "mnist", str(tmp_path / "no.pt"))
    assert (done.returncode, "no.pt cannot be read" in done.stderr) == (1, True)
