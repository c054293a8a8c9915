"""ModelSpec: the interface between a model and the service."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from models.errors import CheckpointError, InvalidInput
from models.reference import Check, accept_all

if TYPE_CHECKING:  # importing torch takes two seconds and 200 MB: only code that builds a network does
    from torch import nn

__all__ = [
    "Array",
    "ByName",
    "Entry",
    "InvalidInput",
    "Method",
    "ModelSpec",
    "PictureReader",
    "Prediction",
    "by_name",
    "same",
    "signed",
]

Array = NDArray[Any]
Prediction = Mapping[str, Any]
Method = Literal["gradient", "integrated_gradients"]  # of computing feature attributions
PictureReader = Callable[[Image], Array]


def by_name(network: str) -> Callable[..., "nn.Module"]:
    """Lazily import the class `module:Class`, when the first network is built: the spec itself needs no torch.

    The function that is returned has the signature of the class. It raises CheckpointError if there is no such class.
    """
    module, _, name = network.partition(":")
    caller = sys._getframe(1)  # for error messages: the file that names the class
    return ByName(module, name, f"{_shown(caller.f_code.co_filename)}, line {caller.f_lineno}")


@dataclass(frozen=True, slots=True)
class ByName:
    """A network class, imported when it is called. `place` is the file and line that name it."""

    module: str
    name: str
    place: str = field(default="", compare=False)

    def __call__(self, **arguments: Any) -> "nn.Module":
        """Build a network. Raises CheckpointError if there is no such class."""
        built: nn.Module = self._imported()(**arguments)
        return built

    @property
    def __signature__(self) -> inspect.Signature:  # read by inspect.signature
        return inspect.signature(self._imported())

    def _imported(self) -> Callable[..., "nn.Module"]:
        try:
            found: Callable[..., nn.Module] = getattr(import_module(self.module), self.name)
        except (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError, RuntimeError) as err:
            raise CheckpointError(
                f"the network of this model cannot be imported ({type(err).__name__}): "
                f'correct by_name("{self.module}:{self.name}") in {self.place}, or the module that it names',
            ) from err
        return found


def _shown(path: str) -> str:
    """Return the last folder and the name of a source file: `models/mnist.py`."""
    return "/".join(Path(path).parts[-2:])


def same(entries: Array) -> Array:
    """Default `preprocess`: the entries of a body are the network's samples."""
    return entries


def signed(attributions: Array, method: Method) -> Mapping[str, Array]:
    """Default `explain`: return the attributions, named after the method."""
    return {"gradient" if method == "gradient" else "attribution": attributions}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of `{"inputs": [...]}` or one row of a .npy array, before `preprocess`.

    `shape` and `dtype` are those of one entry; `low` and `high` bound its numbers (inclusive).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float = field(default=-float(np.finfo(np.float32).max))
    high: float = field(default=float(np.finfo(np.float32).max))

    def fault_of(self, entries: Array) -> str:
        """Say why entries (N, *shape), at least one, do not fit; empty if they do."""
        if not isinstance(entries, np.ndarray):
            return f"it is a {type(entries).__name__}: write np.array([...], {np.dtype(self.dtype).name!r})"
        if entries.ndim == 0 or entries.shape[1:] != self.shape or len(entries) == 0:
            wanted = f"(N{''.join(f', {size}' for size in self.shape)})"
            return f"it has shape {entries.shape}; entry asks for {wanted}, N at least 1"
        if entries.dtype != self.dtype:
            return f"it has dtype {entries.dtype.name}; entry asks for {np.dtype(self.dtype).name}"
        if not ((entries >= self.low) & (entries <= self.high)).all():
            return f"a number is not finite, or not between {self.low:g} and {self.high:g}, the bounds of entry"
        return ""

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of one entry: nested arrays of bounded numbers."""
        schema: dict[str, Any] = {"type": "number", "minimum": self.low, "maximum": self.high}
        for size in reversed(self.shape):
            schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
        return schema


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How a model is built and served: plain functions, no state.

    Data flow: body -> entries (N, *entry.shape) -> `preprocess` -> samples -> network -> outputs
    -> `postprocess` -> values (N, k) float32 -> `describe` -> N predictions.

    network      keyword arguments -> nn.Module: the class, or its name (see `by_name`). Scaling and statistics
                 that the weights depend on are part of the network.
    entry        shape, dtype and bounds of one entry of a JSON or .npy body.
    check        entries of a JSON, .npy or /v2 body (N, *entry.shape) -> the error of each entry that does not look
                 like the training data, by position; see `models.reference`. Pictures are not checked.
    preprocess   entries -> samples, the array that the network takes as a tensor.
    picture      an opened, not yet decoded picture -> one entry; None if the model takes no pictures.
                 Raises InvalidInput.
    grey         the pixels of a small grey picture, uint8 (height, width) -> the entry that `picture` would give, if
                 this is cheap to decide, else None: a fast path for pictures in the form of the training data.
    postprocess  outputs of the network, on the host -> float32 values (N, k), which are also the .npy response.
    describe     values -> one prediction per row; numbers may be NumPy scalars.
    prediction   the TypedDict that `describe` fills; its JSON schema goes into the API documentation.
    explain      attributions (N, *entry.shape) and their method -> named arrays, one row per sample: the fields of an
                 explanation after the first field of the sample's prediction.
    example      a valid value of "inputs", for warm-up, documentation and contract tests.
    """

    summary: str
    network: Callable[..., "nn.Module"]
    entry: Entry
    check: Check = accept_all
    preprocess: Callable[[Array], Array] = same
    picture: PictureReader | None = None
    grey: Callable[[Array], Array | None] | None = None
    postprocess: Callable[[Array], Array]
    describe: Callable[[Array], Sequence[Prediction]]
    prediction: type
    explain: Callable[[Array, Method], Mapping[str, Array]] = signed
    example: Array

    def __post_init__(self) -> None:
        """Raise ValueError if the example does not fit the entry."""
        if fault := self.entry.fault_of(self.example):
            raise ValueError(f"example: {fault}")
