"""File format for an exported network: ONNX bytes, and batches with the outputs of the PyTorch network.

Needs no torch.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.checkpoints.files import write_whole
from models.checkpoints.parity import Case
from models.samples import Batch, Columns
from models.spec import Array


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network. If the export was refused, `onnx` is empty and `refusal` says why.

    `cases` are compared again by each process that loads the export.
    """

    onnx: bytes
    cases: Sequence[Case] = ()
    refusal: str = ""


def write(exported: Exported, path: Path) -> None:
    """Write the file atomically. Raises OSError."""
    tensors = {"onnx": np.frombuffer(exported.onnx, np.uint8), **dict(_arrays(exported))}
    said = {"refusal": exported.refusal, "cases": str(len(exported.cases)), "sha256": _digest(exported)}
    write_whole(safetensors.numpy.save(tensors, said), path)


def read(path: Path) -> Exported | None:
    """Read the file. Returns None if it does not exist or is damaged."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            said = file.metadata()
            places = range(int(said["cases"]))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            cases = [Case(_batch(arrays, f"samples.{at}"), _batch(arrays, f"outputs.{at}")) for at in places]
            exported = Exported(arrays["onnx"].tobytes(), cases, said["refusal"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return exported if _digest(exported) == said["sha256"] else None


def _arrays(exported: Exported) -> Iterator[tuple[str, Array]]:
    for at, case in enumerate(exported.cases):
        yield from _named(f"samples.{at}", case.samples)
        yield from _named(f"outputs.{at}", case.outputs)


def _named(name: str, batch: Batch) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of a batch: one of that name, or named ones in the order of their names."""
    if not isinstance(batch, Columns):
        yield name, np.ascontiguousarray(batch)
        return
    for key, array in sorted(batch.arrays.items()):
        yield f"{name}.{key}", np.ascontiguousarray(array)


def _batch(arrays: Mapping[str, Array], name: str) -> Batch:
    """Return the batch that `_named` wrote. Raises KeyError."""
    if name in arrays:
        return arrays[name]
    found = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
    if not found:
        raise KeyError(name)
    return Columns(found)


def _digest(exported: Exported) -> str:
    digest = hashlib.sha256(exported.onnx)
    for name, array in _arrays(exported):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
