"""File format for an exported network: ONNX bytes and reference outputs of the eager network. Needs no torch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.checkpoints.files import write_whole
from models.spec import Array, ModelSpec

_ROWS = 3


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network. If the export failed, `onnx` is empty and `refusal` says why; see `warm_up_outputs`."""

    onnx: bytes
    outputs: Array
    refusal: str = ""


def warm_up_outputs(spec: ModelSpec, run: Callable[[Array], Array]) -> Array:
    """Run a batch of three samples from the spec's example, then each of them alone: outputs (6, ...).

    The outputs of the eager network are stored with its export, which must give the same at both batch sizes.
    """
    samples = spec.preprocess(spec.example)
    batch = np.ascontiguousarray(np.resize(samples, (_ROWS, *samples.shape[1:])))
    return np.concatenate([run(batch), *(run(batch[row : row + 1]) for row in range(_ROWS))])


def write(exported: Exported, path: Path) -> None:
    """Write the file atomically. Raises OSError."""
    tensors = {"onnx": np.frombuffer(exported.onnx, np.uint8), "outputs": exported.outputs}
    write_whole(safetensors.numpy.save(tensors, {"refusal": exported.refusal, "sha256": _digest(exported)}), path)


def read(path: Path) -> Exported | None:
    """Read the file. Returns None if it does not exist or is damaged."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            said = file.metadata()
            exported = Exported(file.get_tensor("onnx").tobytes(), file.get_tensor("outputs"), said["refusal"])
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return exported if _digest(exported) == said["sha256"] else None


def _digest(exported: Exported) -> str:
    digest = hashlib.sha256(exported.onnx)
    digest.update(exported.outputs.tobytes())
    return digest.hexdigest()
