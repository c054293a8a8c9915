"""Large networks stay in their file until ONNX Runtime has read it: no process keeps a copy of the export."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from torch import Tensor, nn

from models.checkpoints import onnx_file
from models.checkpoints.onnx_export import export
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError
from models.spec import Array
from tests.fakes import LINE

SAMPLES = np.array([[1.0], [2.0], [-3.0]], np.float32)


class Wide(nn.Module):
    """Four MB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 1000), nn.Linear(1000, 1000), nn.Linear(1000, 1))

    def forward(self, samples: Tensor) -> Tensor:
        outputs: Tensor = self.layers(samples)
        return outputs


@pytest.fixture(scope="module")
def exported() -> Exported:
    return export(LINE, Wide().eval())


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The types of what sessions are opened with."""
    seen: list[type] = []
    original = onnxruntime.InferenceSession

    def noting(network: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(type(network))
        return original(network, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    return seen


def outputs(onnx: bytes | memoryview) -> Array:
    found: Array = open_session(onnx, 1)(SAMPLES)
    return found


def test_a_large_network_is_a_view_of_its_file_and_gives_the_same_outputs(
    exported: Exported, given: list[type], tmp_path: Path
) -> None:
    path = tmp_path / "wide.safetensors"
    onnx_file.write(exported, path)
    found = onnx_file.read(path)
    assert found is not None
    assert isinstance(found.onnx, memoryview)
    assert found.onnx == exported.onnx
    assert len(found.cases) == len(exported.cases)
    assert np.array_equal(outputs(found.onnx), outputs(exported.onnx))
    assert given == [str, str]  # a session keeps bytes that it is given
    assert found.onnx == exported.onnx  # though its pages were given back


def test_a_small_network_is_read_into_memory(given: list[type], tmp_path: Path) -> None:
    path = tmp_path / "line.safetensors"
    onnx_file.write(export(LINE, nn.Linear(1, 1).eval()), path)
    found = onnx_file.read(path)
    assert found is not None
    assert isinstance(found.onnx, bytes)
    given.clear()
    outputs(found.onnx)
    assert given == [bytes]


def test_a_large_network_is_loaded_from_memory_if_no_temporary_file_can_be_made(
    exported: Exported, given: list[type], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = outputs(exported.onnx)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert np.array_equal(outputs(exported.onnx), expected)
    assert given == [str, bytes]


@pytest.mark.parametrize("at", [8, 2_000_000, -1])
def test_a_damaged_file_of_a_large_network_is_not_read(exported: Exported, tmp_path: Path, at: int) -> None:
    path = tmp_path / "wide.safetensors"
    onnx_file.write(exported, path)
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert onnx_file.read(path) is None


def test_a_file_without_a_network_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert onnx_file.read(path) is None


def test_a_large_file_that_is_no_network_is_refused_without_its_path() -> None:
    with pytest.raises(DisagreementError, match="Load model from the export failed") as refused:
        open_session(b"\xff" * 2_000_000, 1)
    assert tempfile.gettempdir() not in str(refused.value)
