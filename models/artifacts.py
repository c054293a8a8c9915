"""Artifacts: files of a version other than its weights, such as a vocabulary, names of labels, statistics.

They are JSON-able values and NumPy arrays by name. The record of the checkpoint carries them in packed form, in which
arrays are base64 of the .npy format; nothing is pickled. Large ones are files: see `checkpoints.artifact_files`.
"""

import base64
import inspect
import io
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Artifacts = Mapping[str, Any]

_ARRAY = "npy base64"  # the one key of a packed array


class ArtifactError(ValueError):
    """Artifacts that cannot travel with a checkpoint. The message names the value."""


def packed(array: NDArray[Any]) -> str:
    """Encode an array as base64 of the .npy format."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def unpacked(value: str | NDArray[Any]) -> NDArray[Any]:
    """Decode the result of `packed`. Raises ValueError. An array is returned unchanged."""
    if isinstance(value, np.ndarray):
        return value
    array: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(value)), allow_pickle=False)
    return array


def pack(artifacts: Artifacts) -> dict[str, Any]:
    """Return artifacts in the form of the record. Raises ArtifactError for a value that JSON and .npy cannot carry."""
    return {name: _pack(value, str(name)) for name, value in artifacts.items()}


def unpack(found: Mapping[str, Any]) -> Artifacts:
    """Return the artifacts of a record as `pack` got them; tuples are lists. Raises ValueError."""
    return {name: _unpack(value) for name, value in found.items()}


def plain(artifacts: Artifacts) -> Artifacts:
    """Return artifacts as `unpack` would return them, without copies of the large arrays. Raises ArtifactError."""
    return {
        name: value if isinstance(value, np.ndarray) else _unpack(_pack(value, name))
        for name, value in artifacts.items()
    }


@lru_cache(256)
def takes_artifacts(function: Callable[..., Any]) -> bool:
    """Return whether a function has a parameter `artifacts`."""
    try:
        return "artifacts" in inspect.signature(function).parameters
    except (ValueError, TypeError):  # built in
        return False


def bound(function: Callable[..., Any], artifacts: Artifacts) -> Callable[..., Any]:
    """Return the function with its parameter `artifacts` set, if it has one."""
    return partial(function, artifacts=artifacts) if takes_artifacts(function) else function


def _pack(value: Any, place: str) -> Any:
    match value:
        case np.ndarray() if value.dtype.hasobject:
            raise ArtifactError(f"the artifact {place} is an array of Python objects: store numbers or a list")
        case np.ndarray():
            return {_ARRAY: packed(value)}
        case Mapping():
            if wrong := [key for key in value if not isinstance(key, str)]:
                raise ArtifactError(f"the artifact {place} has the key {wrong[0]!r}: keys are texts")
            return {key: _pack(item, f"{place}[{key!r}]") for key, item in value.items()}
        case list() | tuple():
            return [_pack(item, f"{place}[{position}]") for position, item in enumerate(value)]
        case np.generic():
            return _pack(value.item(), place)
        case None | str() | bool() | int():
            return value
        case float() if np.isfinite(value):
            return value
        case float():
            raise ArtifactError(f"the artifact {place} is {value}: store it in a NumPy array")
    kind = type(value).__name__
    raise ArtifactError(f"the artifact {place} is of type {kind}: keep texts, numbers, lists, dicts and NumPy arrays")


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_ARRAY}:
        return unpacked(value[_ARRAY])
    return {key: _unpack(item) for key, item in value.items()}
