"""torchvision is imported unchanged if possible, else with its operators declared."""

import subprocess
import sys
from types import ModuleType

import pytest
import torch

from tests.fakes import ROOT
from training import torchvision_shim


@pytest.mark.slow  # imports torch and torchvision in a process of its own
def test_its_datasets_can_be_imported_in_a_fresh_interpreter_without_a_warning() -> None:
    code = (
        "from training.torchvision_shim import import_torchvision as load\n"
        "print(load('torchvision.datasets').MNIST.__name__)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "MNIST\n", "")


def test_nothing_is_declared_where_its_operators_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    whole = ModuleType("torchvision")
    monkeypatch.setattr(torchvision_shim, "import_module", lambda _: whole)
    monkeypatch.setattr(torch.library, "define", lambda name, _: declared.append(name))
    assert torchvision_shim.import_torchvision() is whole
    assert not declared


def test_the_missing_operators_are_declared_before_the_second_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    whole = ModuleType("torchvision")

    def import_module(_: str) -> ModuleType:
        if not declared:
            raise RuntimeError("operator torchvision::nms does not exist")
        return whole

    monkeypatch.setattr(torchvision_shim, "import_module", import_module)
    monkeypatch.setattr(torch.library, "define", lambda name, _: declared.append(name))
    assert torchvision_shim.import_torchvision() is whole
    assert declared == ["torchvision::nms", "torchvision::qnms"]


def test_any_other_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(_: str) -> ModuleType:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(torchvision_shim, "import_module", import_module)
    with pytest.raises(RuntimeError, match="on fire"):
        torchvision_shim.import_torchvision()
