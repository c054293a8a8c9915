"""Differences between the keys of a file and of a network that have one meaning: what other savers add or leave out."""

from collections.abc import Mapping

from torch import Tensor, nn

State = dict[str, Tensor]
_COUNT = "num_batches_tracked"  # of batch normalisation; no answer depends on it
_AVERAGED = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_NORM = {"weight_g": "original0", "weight_v": "original1"}  # nn.utils.weight_norm -> that of parametrizations


def current(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Return a state_dict without the keys of AveragedModel, in the names of today's weight_norm, and notes."""
    found, notes = dict(state), []
    others = [key for key in found if key != _AVERAGED]
    if _AVERAGED in found and _AVERAGED not in own and all(key.startswith("module.") for key in others):
        del found[_AVERAGED]
        notes.append(f"{_AVERAGED} of AveragedModel left out")
    renamed = {_of_norm(key, found) if key not in own else key: tensor for key, tensor in found.items()}
    if renamed.keys() != found.keys() and any(".parametrizations.weight.original1" in f".{key}" for key in own):
        found = renamed
        notes.append("weight_g and weight_v of weight_norm renamed")
    return found, notes


def _of_norm(key: str, keys: Mapping[str, Tensor]) -> str:
    module, _, name = key.rpartition(".")
    prefix = f"{module}." if module else ""
    if name in _NORM and all(f"{prefix}{other}" in keys for other in _NORM):
        return f"{prefix}parametrizations.weight.{_NORM[name]}"
    return key


def completed(network: nn.Module, own: Mapping[str, Tensor], tensors: State) -> tuple[State, list[str]] | None:
    """Return the tensors under exactly the keys of the network, and notes on those added or left out.

    A missing tensor is that of a tied parameter, which safetensors saves once, or a count of batches, which files of
    old versions lack. Left out is a buffer that the network computes itself, to the same numbers, and does not save.
    Returns None if other keys are missing or unexpected.
    """
    tied = _tied(network, tensors)
    missing = [key for key in own if key not in tensors]
    unexpected = [key for key in tensors if key not in own]
    computed = dict(network.named_buffers()) if unexpected else {}
    if not all(key in tied or key.rpartition(".")[2] == _COUNT for key in missing):
        return None
    if not all(key in computed and _equal(tensors[key], computed[key]) for key in unexpected):
        return None
    found = {key: tensors[tied.get(key, key)] if tied.get(key, key) in tensors else own[key] for key in own}
    counts = [key for key in missing if key not in tied]
    notes = [f"{key} is tied to {tied[key]}" for key in missing if key in tied]
    notes += [f"{len(counts)} {_COUNT} missing"] if counts else []
    return found, [*notes, *(f"{key} left out: the network computes it" for key in unexpected)]


def _tied(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the key of a present tensor for each absent one of the same parameter."""
    present: dict[int, str] = {}
    parameters = list(network.named_parameters(remove_duplicate=False))
    for key, parameter in parameters:
        if key in tensors:
            present.setdefault(id(parameter), key)
    return {
        key: present[id(parameter)] for key, parameter in parameters if key not in tensors and id(parameter) in present
    }


def _equal(tensor: Tensor, other: Tensor) -> bool:
    """Return whether two buffers are equal; on the meta device, which has no numbers, their shapes."""
    if tensor.shape != other.shape or other.is_meta:
        return tensor.shape == other.shape
    return bool((tensor.to(other.dtype) == other).all())
