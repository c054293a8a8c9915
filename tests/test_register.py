"""Checkpoints that were trained offline become versions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service import register
from service.delivery.registry import Registry
from service.store.database import Store
from tests.fakes import ROOT

pytestmark = pytest.mark.slow
SHIPPED = ROOT / "models" / "pretrained"
Registered = Callable[[Path, str, Path], tuple[int, str]]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Registered:
    """Register a checkpoint in a store by the command, in this process. Returns the exit status and all output."""

    def run(store: Path, model: str, path: Path) -> tuple[int, str]:
        for name in [name for name in os.environ if name.startswith("TORCHLOOP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("TORCHLOOP_STORE", str(store))
        monkeypatch.setattr(sys, "argv", ["register", model, str(path)])
        status = register.main()
        return status, "".join(capsys.readouterr())

    return run


def versions(store: Path, model: str) -> list[dict[str, object]]:
    opened = Store(store)
    try:
        return [dict(version.record) for version in Registry(opened).versions(model)]
    finally:
        opened.close()


def test_register_makes_an_offline_run_a_version_that_is_not_live(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    environ["TORCHLOOP_STORE"] = str(tmp_path)
    words = [sys.executable, "-m", "training", "regressor", "--epochs", "20", "--register"]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "registered version 1 of regressor" in done.stdout
    (record,) = versions(tmp_path, "regressor")
    assert record["command"] == "python -m training regressor --epochs 20"
    store = Store(tmp_path)
    assert Registry(store).live() == {}
    store.close()


def test_a_checkpoint_from_elsewhere_is_copied_into_the_store(tmp_path: Path, registered: Registered) -> None:
    assert registered(tmp_path, "mnist", SHIPPED / "mnist.pt")[0] == 0
    (copy,) = (tmp_path / "checkpoints" / "mnist").glob("*.pt")
    assert copy.read_bytes() == (SHIPPED / "mnist.pt").read_bytes()


def test_a_file_that_is_removed_before_its_version_is_registered_is_copied_again(
    tmp_path: Path, registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate = Store.migrate

    def removing(store: Store) -> None:
        migrate(store)
        for path in store.folder.glob("checkpoints/mnist/*.pt"):
            path.unlink()

    monkeypatch.setattr(Store, "migrate", removing)
    assert registered(tmp_path, "mnist", SHIPPED / "mnist.pt")[0] == 0
    (copy,) = (tmp_path / "checkpoints" / "mnist").glob("*.pt")
    assert copy.read_bytes() == (SHIPPED / "mnist.pt").read_bytes()


@pytest.mark.parametrize(("model", "words"), [("regressor", "is a checkpoint of mnist"), ("classifier", "mnist")])
def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, model: str, words: str, registered: Registered
) -> None:
    status, said = registered(tmp_path, model, SHIPPED / "mnist.pt")
    assert status == 1
    assert words in said


def test_conversions_are_said_and_kept_in_the_record(tmp_path: Path, registered: Registered) -> None:
    state = torch.load(SHIPPED / "regressor.pt", weights_only=True)
    torch.save({f"module.{key}": tensor.half() for key, tensor in state.items()}, tmp_path / "half.pt")
    status, said = registered(tmp_path / "store", "regressor", tmp_path / "half.pt")
    assert status == 0, said
    notes = ["prefix module. removed from the keys", "float16 cast to float32: 4 tensors"]
    assert said.splitlines()[:2] == notes
    (record,) = versions(tmp_path / "store", "regressor")
    assert record["notes"] == notes


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, registered: Registered) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    status, said = registered(tmp_path / "store", "mnist", SHIPPED / "mnist.pt")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "TORCHLOOP_STORE: this is not a folder" in said


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path, registered: Registered) -> None:
    status, said = registered(tmp_path, "mnist", tmp_path / "no.pt")
    assert (status, "no.pt cannot be read" in said) == (1, True)
