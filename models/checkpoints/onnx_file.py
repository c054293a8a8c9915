"""A network in ONNX form, in one file, with what the eager network answers. Reading one needs no torch."""

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
    """`onnx` is the model, empty where there can be none: `refusal` then says why. `outputs`: see `warm_up_outputs`."""

    onnx: bytes
    outputs: Array
    refusal: str = ""


def warm_up_outputs(spec: ModelSpec, run: Callable[[Array], Array]) -> Array:
    """Outputs (6, ...) of a batch of three samples, made of the spec's example, and then of each sample alone.

    What the eager network answers is kept with its export, which must answer the same, also at another batch size.
    """
    samples = spec.preprocess(spec.example)
    batch = np.ascontiguousarray(np.resize(samples, (_ROWS, *samples.shape[1:])))
    return np.concatenate([run(batch), *(run(batch[row : row + 1]) for row in range(_ROWS))])


def write(exported: Exported, path: Path) -> None:
    """Whole or not at all. Raises OSError."""
    tensors = {"onnx": np.frombuffer(exported.onnx, np.uint8), "outputs": exported.outputs}
    write_whole(safetensors.numpy.save(tensors, {"refusal": exported.refusal, "sha256": _digest(exported)}), path)


def read(path: Path) -> Exported | None:
    """None where there is no such file, or none that is whole."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            said = file.metadata()
            exported = Exported(file.get_tensor("onnx").tobytes(), file.get_tensor("outputs"), said["refusal"])
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return exported if _digest(exported) == said["sha256"] else None


def _digest(exported: Exported) -> str:
    return hashlib.sha256(exported.onnx + exported.outputs.tobytes()).hexdigest()
