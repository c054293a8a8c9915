"""Save and load checkpoints: a state_dict file NAME.pt and its record NAME.json.

Both are written atomically, weights first: if the record exists, the weights are complete. A state_dict without a
record is loaded with the network's default arguments.
"""

import hashlib
import io
import json
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.checkpoints.files import write_whole
from models.checkpoints.record import Record, read_verified, record_path
from models.errors import CheckpointError
from models.spec import ModelSpec

# Errors of torch.load for damaged or forged files. UnpicklingError also means: it has objects other than tensors.
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
    AssertionError, struct.error,
)  # fmt: skip
_ZIP = b"PK\x03\x04"
_FLOOR = (2, 10)  # of PyTorch: before, a crafted file could run code despite weights_only (CVE-2026-24747)


def save_weights(state: Mapping[str, Tensor], path: Path) -> str:
    """Write a state_dict atomically and return its sha256. The same tensors give the same bytes."""
    content = to_bytes(state)
    write_whole(content, path)
    return hashlib.sha256(content).hexdigest()


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Serialize a state_dict with torch.save."""
    buffer = io.BytesIO()
    torch.save({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}, buffer)
    return buffer.getvalue()


def save_record(record: Record, path: Path) -> None:
    """Write the record of the weights at `path` atomically."""
    text = json.dumps(asdict(record), indent=2, allow_nan=False, ensure_ascii=False)
    write_whole(f"{text}\n".encode(), record_path(path))


def load(name: str, spec: ModelSpec, path: Path, record: Record | None = None) -> tuple[nn.Module, Record]:
    """Load the network with the weights at `path`, on the CPU and in eval mode, and its record.

    The weights must match `record`, or else the record file next to them. Only tensors are unpickled.
    Raises CheckpointError, with the file and the reason.
    """
    content, record = read_verified(name, path, record)
    network = build(spec, record.arguments)
    adopt(network, read_state(content, path.name))
    return network.eval(), record


def build(spec: ModelSpec, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network. Raises CheckpointError if the constructor rejects these arguments."""
    try:
        return spec.network(**arguments)
    except (TypeError, ValueError, RuntimeError) as err:
        raise CheckpointError(f"the network rejects the constructor arguments {dict(arguments)}: {err}") from err


def read_state(content: bytes, name: str) -> dict[str, Tensor]:
    """Parse a state_dict from torch.save or safetensors; tensors only. `name` is used in error messages.

    Raises CheckpointError.
    """
    if content[8:9] == b"{" and not content.startswith(_ZIP):  # eight bytes of length, then a JSON header
        return _read_safetensors(content, name)
    if tuple(map(int, torch.__version__.split(".")[:2])) < _FLOOR:
        floor = ".".join(map(str, _FLOOR))
        raise CheckpointError(f"PyTorch {torch.__version__} reads {name} unsafely: install {floor} or newer")
    try:
        if not content.startswith(_ZIP):
            raise ValueError("not the zip format that torch.save has written since PyTorch 1.6")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNREADABLE as err:
        raise CheckpointError(
            f"{name} is not a state_dict file: it is damaged, or has objects other than tensors. "
            "Write it with torch.save(network.state_dict(), ...)",
        ) from err
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{name} has no state_dict: write it with torch.save(network.state_dict(), ...)")
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{name} has values that are not tensors: {', '.join(others[:5])}")
    return state


def _read_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as err:
        raise CheckpointError(f"{name} is a damaged safetensors file") from err


def adopt(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a state_dict into `network`. Keys of an equivalent nn.Sequential (`0.weight`, ...) are matched by position.

    Raises CheckpointError with every missing, unexpected or mis-shaped key, and leaves the network unchanged.
    """
    state = _named_as(network, state)
    own = network.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    faults += [
        f"{key} has shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError("the state_dict does not fit the network: " + "; ".join(faults))
    damaged = [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if damaged:
        raise CheckpointError(f"the state_dict has numbers that are not finite: {', '.join(damaged)}")
    network.load_state_dict(dict(state))


def _named_as(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename the keys of an nn.Sequential to the network's, in order. Missing buffers keep their initial values."""
    names = [name for name, _ in network.named_parameters()]
    if not all(re.fullmatch(r"\d+\.\w+", key) for key in state) or len(state) != len(names):
        return state
    renamed = dict(zip(names, state.values(), strict=True))
    return {**dict(network.named_buffers()), **renamed}
