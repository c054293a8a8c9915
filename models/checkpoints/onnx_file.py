"""File format for an exported network: ONNX bytes, and batches with the outputs of the PyTorch network.

Needs no torch.
"""

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from models.checkpoints.files import write_whole
from models.checkpoints.parity import Case
from models.checkpoints.verdict import Verdict
from models.samples import Batch, Columns
from models.spec import Array

_ONNX, _INT8 = "onnx", "onnx.int8"  # names of the tensors
_LARGE = 1_048_576  # bytes


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network. If the export was refused, `onnx` is empty and `refusal` says why.

    A large network that was read from a file stays there: `onnx` is a view of the mapped file.

    `cases` are compared again by each process that loads the export. `quantised` is the network in int8, empty if there
    is none. `verdicts` are those on its numeric forms; none if there was no data to evaluate them on.
    """

    onnx: bytes | memoryview
    cases: Sequence[Case] = ()
    refusal: str = ""
    quantised: bytes | memoryview = b""
    verdicts: Sequence[Verdict] = ()


def write(exported: Exported, path: Path) -> None:
    """Write the file atomically. Raises OSError."""
    tensors = {_ONNX: np.frombuffer(exported.onnx, np.uint8), **dict(_arrays(exported))}
    said = {"refusal": exported.refusal, "cases": str(len(exported.cases)), "sha256": _digest(exported)}
    if exported.quantised:
        tensors[_INT8] = np.frombuffer(exported.quantised, np.uint8)
    if exported.verdicts:
        said["verdicts"] = _in_json(exported.verdicts)
    write_whole(safetensors.numpy.save(tensors, said), path)


def _in_json(verdicts: Sequence[Verdict]) -> str:
    return json.dumps([asdict(verdict) for verdict in verdicts], sort_keys=True)


def read(path: Path) -> Exported | None:
    """Read the file. Returns None if it does not exist or is damaged."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            said = file.metadata()
            places = range(int(said["cases"]))
            names = {*file.keys()}
            arrays = {name: file.get_tensor(name) for name in names - {_ONNX, _INT8}}
            cases = [Case(_batch(arrays, f"samples.{at}"), _batch(arrays, f"outputs.{at}")) for at in places]
            quantised = _network(path, _INT8) if _INT8 in names else b""
            verdicts = [Verdict(**verdict) for verdict in json.loads(said.get("verdicts", "[]"))]
            exported = Exported(_network(path), cases, said["refusal"], quantised, verdicts)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return exported if _digest(exported) == said["sha256"] else None


def _network(path: Path, name: str = _ONNX) -> bytes | memoryview:
    """Return the bytes of the network in a file, or a view of the mapped file if they are many: no copy is held then.

    Raises OSError, KeyError, ValueError.
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        start, end = (8 + header + at for at in json.loads(file.read(header))[name]["data_offsets"])
        if end - start < _LARGE:
            file.seek(start)
            return file.read(end - start)
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[start:end]


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
    if exported.quantised or exported.verdicts:
        digest.update(_in_json(exported.verdicts).encode())
        digest.update(exported.quantised)
    return digest.hexdigest()
