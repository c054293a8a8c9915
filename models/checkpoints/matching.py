"""Match the tensors of a file to those of a network: keys, shapes, layouts and dtypes."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.checkpoints.leniency import completed, current
from models.errors import CheckpointError, shown

_DEEPEST = 9  # parts of a prefix, and one
_LISTED = 50  # keys in an error message
# Names that a wrapper adds to the keys: DistributedDataParallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_BY_POSITION = "keys of an nn.Sequential matched by position"
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
Rename = Callable[[str], str]


class Misfit(CheckpointError):
    """Error: keys or shapes differ. `related`: some keys are those of the network, so other arguments may fit."""

    def __init__(self, message: str, *, related: bool) -> None:
        super().__init__(message)
        self.related = related


def match(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under the network's keys, and notes on the keys that differed.

    Keys may have one prefix more than the network's (DistributedDataParallel, torch.compile, Lightning), or be those of
    an equivalent nn.Sequential (`0.weight`, ...), which are matched by position; then buffers may be missing. Other
    differences that have one meaning are in `leniency`.
    Raises CheckpointError with every tensor that does not fit; Misfit if it is a matter of keys and shapes.
    """
    _require_dense(state)
    own = network.state_dict()
    state, older = current(own, state)
    renamed, notes = _renamed(network, own, state)
    missing = [] if _BY_POSITION in notes else [key for key in own if key not in renamed]
    unexpected = [key for key in renamed if key not in own]
    faults = [*_listed("missing", missing), *_listed("unexpected", unexpected)]
    faults += [
        f"{shown(key)} has shape {tuple(tensor.shape)} instead of {tuple(own[key].shape)}"
        for key, tensor in renamed.items()
        if key in own and tensor.shape != own[key].shape
    ][:_LISTED]
    if faults:
        said = f"the state_dict does not fit the network: {'; '.join(faults)}{_hint(own, state)}"
        raise Misfit(said, related=bool(own.keys() & renamed.keys()))
    _require_dtypes(own, renamed)
    return renamed, [*older, *notes]


def converted(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Convert matched tensors to the dtypes of the network, and return notes on the conversions.

    Raises CheckpointError if a number is not finite, or if an integer would change.
    """
    tensors = {key: tensor.to(own[key].dtype) for key, tensor in state.items()}
    damaged = [key for key, tensor in tensors.items() if not _is_finite(tensor) or not _is_finite(state[key])]
    if damaged:
        raise CheckpointError(f"the state_dict has numbers that are not finite: {', '.join(_cut(damaged))}")
    changed = [
        key
        for key, tensor in tensors.items()
        if own[key].dtype in _INTEGERS and not torch.equal(tensor.double(), state[key].double())
    ]
    if changed:
        raise CheckpointError(f"the state_dict has numbers that are not whole or too large: {', '.join(_cut(changed))}")
    casts = Counter((state[key].dtype, tensor.dtype) for key, tensor in tensors.items())
    return tensors, [
        f"{_name(old)} cast to {_name(new)}: {count} tensor{'s' if count > 1 else ''}"
        for (old, new), count in casts.items()
        if old != new
    ]


def _hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return a way out for keys that differ: the line of Python that removes a prefix, or that renames all keys."""
    first = next(iter(own), "")
    prefixes = [key.removesuffix(first) for key in state if key.endswith(f".{first}")] if first else []
    for prefix in prefixes[:1]:
        line = (
            f"{{key.removeprefix({prefix!r}): tensor for key, tensor in state.items() if key.startswith({prefix!r})}}"
        )
        return f". Keys of the network have the prefix {shown(prefix)} in the file: save {line}"
    differ = own.keys() - state.keys()
    if differ and [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in state.values()]:
        return (
            ". Only the names differ: save dict(zip(network.state_dict(), state.values())) with the network served here"
        )
    return ""


def _renamed(
    network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the keys if that makes all of them match."""
    if state.keys() == own.keys():
        return dict(state), []
    for note, rename in _renamings(state):
        tensors = {rename(key): tensor for key, tensor in state.items()}
        if len(tensors) < len(state):
            continue
        notes = [note] if note else []
        if fitting := completed(network, own, tensors):
            return fitting[0], [*notes, *fitting[1]]
        if tensors and all(re.fullmatch(r"\d{1,9}\.\w+", key) for key in tensors):
            parameters = [name for name, _ in network.named_parameters()]
            if placed := _by_position(list(own), tensors) or _by_position(parameters, tensors):
                return placed, [*notes, _BY_POSITION]
    return dict(state), []


def _by_position(names: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an nn.Sequential to `names`, layer by layer; empty if they do not match."""
    if len(names) != len(tensors):
        return {}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    numbers = sorted({int(key.partition(".")[0]) for key in tensors})
    if len(layers) == len(numbers):
        layer = dict(zip(numbers, layers, strict=True))
        parts = {key: key.partition(".") for key in tensors}
        placed = {f"{layer[int(parts[key][0])]}.{parts[key][2]}": tensor for key, tensor in tensors.items()}
        if placed.keys() == set(names):
            return placed
    if [_last(name) for name in names] != [_last(key) for key in tensors]:  # `0.kernel` is not a `weight`
        return {}
    return dict(zip(names, tensors.values(), strict=True))


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _renamings(keys: Iterable[str]) -> Iterator[tuple[str, Rename]]:
    """Yield ways to rename the keys: none, without a common prefix, without the names of wrappers."""
    yield "", str
    for prefix in _prefixes(keys):
        yield f"prefix {shown(prefix)} removed from the keys", _without_prefix(prefix)
    bare = [_without_wrappers(key) for key in keys]
    yield "names of wrappers removed from the keys", _without_wrappers
    for prefix in _prefixes(bare):
        strip = _without_prefix(prefix)
        yield f"names of wrappers and prefix {shown(prefix)} removed from the keys", _both(strip)


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Return the prefixes that all keys have in common, the shortest first: `a.`, `a.b.`."""
    prefixes = [""]
    for parts in zip(*(key.split(".")[:-1] for key in keys), strict=False):
        if len(set(parts)) > 1:
            break
        prefixes.append(f"{prefixes[-1]}{parts[0]}.")
    return prefixes[1:_DEEPEST]


def _without_prefix(prefix: str) -> Rename:
    return lambda key: key.removeprefix(prefix)


def _both(strip: Rename) -> Rename:
    return lambda key: strip(_without_wrappers(key))


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _require_dense(state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for tensors without numbers, or with another layout than dense."""
    faults: dict[str, list[str]] = {}
    for key, tensor in state.items():
        if fault := _layout_fault(tensor):
            faults.setdefault(fault, []).append(key)
    if faults:
        said = (f"{fault}: {', '.join(_cut(keys))}" for fault, keys in faults.items())
        raise CheckpointError(f"the state_dict has tensors that are not dense: {'; '.join(said)}")


def _layout_fault(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "nested tensor (save its unbind() as dense tensors)"
    if tensor.is_meta:
        return "meta tensor, which has no numbers (load the weights before you save the network)"
    if tensor.layout is not torch.strided:
        return f"layout {_name(tensor.layout)} (save tensor.to_dense())"
    if tensor.is_quantized:
        return f"quantised to {_name(tensor.dtype)} (save tensor.dequantize())"
    return ""


def _require_dtypes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for dtypes that cannot be converted to those of the network without a loss."""
    faulty = {key: tensor.dtype for key, tensor in state.items() if not _converts(tensor.dtype, own[key].dtype)}
    if not faulty:
        return
    faults = [f"{shown(key)} is {_name(dtype)} instead of {_name(own[key].dtype)}" for key, dtype in faulty.items()]
    ways_out = " or ".join(dict.fromkeys(map(_way_out, faulty.values())))
    raise CheckpointError(
        f"the state_dict has other dtypes than the network: {'; '.join(_cut(faults))}. Save {ways_out}; "
        "float16, bfloat16, float32 and float64 are converted to each other",
    )


def _way_out(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "real weights"
    return "tensor.float()" if dtype.is_floating_point else "the floating-point weights from before the quantisation"


def _converts(old: torch.dtype, new: torch.dtype) -> bool:
    """Whether a dtype is converted. An integer buffer may have become float, e.g. by `state.half()`, if it is whole."""
    return old == new or (old in _FLOATS and new in _FLOATS | _INTEGERS) or (old in _INTEGERS and new in _INTEGERS)


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        tensor = tensor.float()  # isfinite is not implemented for float8
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(tensor.isfinite().all())


def _listed(word: str, keys: Sequence[str]) -> list[str]:
    shorter = [f"{word} {shown(key)}" for key in keys[:_LISTED]]
    return shorter if len(keys) <= _LISTED else [*shorter, f"and {len(keys) - _LISTED} more {word}"]


def _cut(items: Sequence[str]) -> list[str]:
    rest = len(items) - _LISTED
    return [shown(item) for item in items] if rest <= 0 else [*map(shown, items[:_LISTED]), f"and {rest} more"]


def _name(kind: object) -> str:
    """Return the name of a dtype or layout without `torch.`."""
    return str(kind).removeprefix("torch.")
