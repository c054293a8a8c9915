"""A network in ONNX form, in one file, with what the eager network answers. Reading one needs no torch."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.files import write_whole
from models.record import Record
from models.spec import Array, ModelSpec

_ROWS = 3  # of the warm-up batch: more than one, so that a network which mixes its samples up is found out


@dataclass(frozen=True, slots=True)
class Exported:
    """`onnx` is the model, empty where there can be none: `refusal` then says why. `outputs`: see `warm_up_batch`."""

    onnx: bytes
    outputs: Array
    refusal: str = ""


def warm_up_batch(spec: ModelSpec) -> Array:
    """Samples (3, ...) made of the spec's example: what the eager network answers to them is kept with the export."""
    samples = spec.preprocess(spec.example)
    return np.ascontiguousarray(np.resize(samples, (_ROWS, *samples.shape[1:])))


def export_path(store: Path, record: Record) -> Path:
    """Where a store keeps the export of a checkpoint: another one for every change of what the export depends on."""
    made_of = [record.sha256, dict(record.arguments), _sources(), version("torch")]
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
    return store / "exports" / record.model / f"{key}.safetensors"


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


@cache
def _sources() -> str:
    """A digest of this package's sources: weights stay the same when their network's code changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
