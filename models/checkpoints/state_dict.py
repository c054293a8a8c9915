"""Save and load checkpoints: a state_dict file NAME.pt and its record NAME.json.

Both are written atomically, weights first: if the record exists, the weights are complete. A state_dict without a
record is loaded with the network's default arguments.
"""

import hashlib
import io
import json
import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from models.checkpoints import archive, forms, safetensors_file
from models.checkpoints.arguments import hint
from models.checkpoints.files import write_whole
from models.checkpoints.matching import Misfit, converted, match
from models.checkpoints.record import Record, read_verified, record_path
from models.eager import built
from models.errors import CheckpointError, shown
from models.spec import ModelSpec

# Errors of torch.load and safetensors for damaged or forged files, and of networks for arguments that they reject.
_ERRORS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, ImportError,
    MemoryError, EOFError, NameError, struct.error, pickle.UnpicklingError, SafetensorError,
)  # fmt: skip
_SAVE = "Write it with torch.save(network.state_dict(), ...)"
_DEPTH = 3  # of dictionaries in which the tensors of a checkpoint are looked for
_ANY_SIZE = 64 * 2**20  # bytes of a network that are allocated whatever the size of the file
_FREE = 2**20  # bytes that a file may unpack to, whatever the network
_TIMES_FILE = 8  # a larger network has at most as many times the file's bytes: half precision, shared tensors
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

    The weights must match `record`, or else the record file next to them. Only tensors are unpickled. Notes on
    conversions are added to the record. Raises CheckpointError, with the file and the reason.
    """
    registered = record is not None
    content, record = read_verified(name, path, record)
    network, notes = restore(spec, record.arguments, content, path.name, sizes_first=not registered)
    return network.eval(), replace(record, notes=list(dict.fromkeys([*record.notes, *notes])))


def restore(
    spec: ModelSpec, arguments: Mapping[str, Any], content: bytes, name: str, *, sizes_first: bool = True
) -> tuple[nn.Module, list[str]]:
    """Build the network with the weights of a file; `name` is used in error messages. Also returns notes.

    With `sizes_first`, for files that were not compared with a checksum: a network with arguments is compared on the
    meta device before its weights are allocated, and the members of an archive with their checksums.
    Raises CheckpointError.
    """
    unpacked = _check(content, name)
    first = sizes_first and bool(arguments)
    outline = _outline(spec, arguments, content, name) if first else build(spec, arguments)
    if unpacked > max(len(content), sum(tensor.nbytes for tensor in outline.state_dict().values()) + _FREE):
        raise CheckpointError(
            f"{name} is not a state_dict file: it unpacks to {unpacked:,} bytes, more than the network needs. "
            "Write it with torch.save, which does not compress",
        )
    if sizes_first and content.startswith(archive.START):
        archive.require_whole(content, name)
    state, notes = _parsed(content, name)
    try:
        if first:
            match(outline, state)
        network = build(spec, arguments) if first else outline
        return network, [*notes, *adopt(network, state)]
    except Misfit as err:
        raise CheckpointError(f"{err}{hint(spec, arguments, state) if err.related else ''}") from err


def _outline(spec: ModelSpec, arguments: Mapping[str, Any], content: bytes, name: str) -> nn.Module:
    """Build the network on the meta device, without memory for weights, or as usual if its constructor fails there.

    Raises CheckpointError as soon as its parameters and buffers are too large for the file.
    """
    most = max(_ANY_SIZE, _TIMES_FILE * len(content))
    total = 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal total
        total += tensor.nbytes if tensor is not None else 0
        if total > most:
            raise CheckpointError(
                f"the network that the constructor arguments {shown(str(dict(arguments)))} build has more than "
                f"{most:,} bytes of weights, {name} only {len(content):,}: send the arguments of the saved network",
            )

    with ExitStack() as hooks:
        for register in (register_module_parameter_registration_hook, register_module_buffer_registration_hook):
            hooks.callback(register(count).remove)
        try:
            with torch.device("meta"):
                return build(spec, arguments)
        except CheckpointError:
            if total > most:
                raise
        total = 0
        return build(spec, arguments)


def build(spec: ModelSpec, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network. Raises CheckpointError if the constructor rejects these arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Initializing zero-element tensors is a no-op"
            return built(spec, arguments)
    except _ERRORS as err:
        given, reason = shown(str(dict(arguments))), shown(str(err).partition("\n")[0])
        raise CheckpointError(
            f"the network rejects the constructor arguments {given}: {type(err).__name__}: {reason}",
        ) from err


def read_state(content: bytes, name: str) -> dict[str, Tensor]:
    """Parse a state_dict from torch.save or safetensors; tensors only. `name` is used in error messages.

    Raises CheckpointError.
    """
    _check(content, name)
    return _parsed(content, name)[0]


def _check(content: bytes, name: str) -> int:
    """Check the format, and return the size that it declares to have unpacked. Raises CheckpointError."""
    if content.startswith(archive.START):
        return archive.check(content, name)
    if not safetensors_file.is_safetensors(content):
        raise CheckpointError(f"{name} is not a state_dict file: {forms.of_content(content)}")
    safetensors_file.check(content, name)
    return len(content)


def _parsed(content: bytes, name: str) -> tuple[dict[str, Tensor], list[str]]:
    if not content.startswith(archive.START):
        return _read_safetensors(content, name), []
    if tuple(map(int, torch.__version__.split(".")[:2])) < _FLOOR:
        floor = ".".join(map(str, _FLOOR))
        raise CheckpointError(f"PyTorch {torch.__version__} reads {name} unsafely: install {floor} or newer")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sparse layouts and old storages warn; they are refused or read below
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _ERRORS as err:
        raise CheckpointError(
            f"{name} is not a state_dict file: it is damaged, or has objects other than tensors. {_SAVE}"
        ) from err
    return _tensors(loaded, name)


def _tensors(loaded: object, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state_dict in a loaded object, and a note if it was taken out of a dictionary with other entries.

    Raises CheckpointError if there is none, or more than one.
    """
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{name} has no state_dict but an object of type {type(loaded).__name__}. {_SAVE}")
    if _is_state(loaded):
        return dict(loaded), []
    places = list(_places(loaded))
    if len(places) == 1:
        state = loaded
        for key in places[0]:
            state = state[key]
        return dict(state), [f"weights read from the entry {'.'.join(map(shown, places[0]))}"]
    if places:
        words = " or ".join(".".join(map(shown, place)) for place in places[:5])
        line = "".join(f"[{key!r}]" for key in map(shown, places[0]))
        raise CheckpointError(
            f"{name} is a checkpoint with several state_dicts, under {words}: save the one to serve, with "
            f"torch.save(torch.load(FILE, weights_only=True){line}, FILE)",
        )
    others = [
        f"{_text(key)} ({type(value).__name__})" for key, value in loaded.items() if not isinstance(value, Tensor)
    ]
    if others:
        raise CheckpointError(f"{name} has values that are not tensors: {', '.join(others[:5])}. {_SAVE}")
    others = [f"{_text(key)} ({type(key).__name__})" for key in loaded if not isinstance(key, str)]
    raise CheckpointError(f"{name} has no state_dict, but keys that are not text: {', '.join(others[:5])}. {_SAVE}")


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
    )


def _places(loaded: Mapping[Any, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the state_dicts in nested dictionaries."""
    for key, value in loaded.items():
        if isinstance(key, str) and isinstance(value, dict) and value:
            if _is_state(value):
                yield (*above, key)
            elif len(above) < _DEPTH - 1:
                yield from _places(value, (*above, key))


def _text(key: object) -> str:
    return shown(key if isinstance(key, str) else repr(key) if isinstance(key, int | float | bytes) else "a key")


def _read_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except _ERRORS as err:
        raise safetensors_file.refused(content, name) from err


def adopt(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy a state_dict into `network`, and return notes on renamed keys and converted dtypes. See `match`.

    Raises CheckpointError, and leaves the network unchanged, if it does not fit or has numbers that are not finite.
    """
    matched, notes = match(network, state)
    tensors, casts = converted(network.state_dict(), matched)
    network.load_state_dict(tensors, strict=False)  # `match` compared the keys
    return [*notes, *casts]
