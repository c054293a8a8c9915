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

from models.artifacts import takes_artifacts
from models.defaults import default_fault
from models.errors import CheckpointError, InvalidInput
from models.reference import Check, accept_all
from models.segments import SegmentReader
from models.signature import Input, Output, Padded, Picture, PictureReader, Tensor, Text, is_missing, is_required

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

    def __post_init__(self) -> None:
        """Take a dtype in any form of NumPy, such as "float32"."""
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def fault_of(self, entries: Array) -> str:
        """Say why entries (N, *shape), at least one, do not fit; empty if they do."""
        if not isinstance(entries, np.ndarray):
            return f"it is a {type(entries).__name__}: write np.array([...], {self.dtype.name!r})"
        if entries.ndim == 0 or entries.shape[1:] != self.shape or len(entries) == 0:
            wanted = f"(N{''.join(f', {size}' for size in self.shape)})"
            return f"it has shape {entries.shape}; entry asks for {wanted}, N at least 1"
        if entries.dtype != self.dtype:
            return f"it has dtype {entries.dtype.name}; entry asks for {self.dtype.name}"
        if not ((entries >= self.low) & (entries <= self.high)).all():
            return f"a number is not finite, or not between {self.low:g} and {self.high:g}, the bounds of entry"
        return ""

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of one entry: nested arrays of bounded numbers."""
        schema: dict[str, Any] = {"type": "number", "minimum": self.low, "maximum": self.high}
        for size in reversed(self.shape):
            schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
        return schema


def _prediction_fault(prediction: type) -> str:
    """Say what else than a TypedDict with a JSON schema a class is; empty if it is one."""
    if not hasattr(prediction, "__total__"):
        return "not a TypedDict"
    if sys.version_info < (3, 12) and type(prediction).__module__ == "typing":  # pydantic cannot read its fields
        return "not a TypedDict of typing_extensions, which Python before 3.12 needs: import it from there"
    return ""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How a model is built and served: plain functions, no state. It has either one `entry` or named `inputs`.

    One tensor:   body -> entries (N, *entry.shape) -> `preprocess` -> samples -> network
    Named inputs: body -> for each sample: `inputs` check its values -> `encode` -> named arrays -> network, which gets
                  them as keyword arguments (N, ...)
    Both:         network -> outputs -> `postprocess` -> values -> `describe` -> N predictions

    Outputs and values are one array (N, k) float32; with `outputs`, they are named arrays of any shape and dtype.
    A function that has a parameter `artifacts` gets the artifacts of the version that answers: `encode`,
    `postprocess`, `describe`.

    network      keyword arguments -> nn.Module: the class, or its name (see `by_name`). Scaling and statistics
                 that the weights depend on are part of the network, or artifacts of its version.
    entry        shape, dtype and bounds of one entry of a JSON or .npy body.
    check        entries of a JSON, .npy or /v2 body (N, *entry.shape) -> the error of each entry that does not look
                 like the training data, by position; see `models.reference`. Pictures are not checked.
    preprocess   entries -> samples, the array that the network takes as a tensor.
    picture      an opened, not yet decoded picture -> one entry; None if the model takes no pictures.
                 Raises InvalidInput.
    segments     an opened, not yet decoded picture -> the samples in it, in reading order, for `?segment=true`; None
                 if a picture is one sample. Raises InvalidInput.
    grey         the pixels of a small grey picture, uint8 (height, width) -> the entry that `picture` would give, if
                 this is cheap to decide, else None: a fast path for pictures in the form of the training data.
    inputs       name -> Number, Category, Text, Tensor or Picture; see `models.signature`.
    encode       one sample, its checked values by name -> its arrays, by the names of the network's keyword arguments.
                 Raises InvalidInput. By default each input is one array: Number float32, Category its position, int64,
                 Tensor and Picture themselves.
    padding      array of `encode` -> how arrays of different lengths are padded. Without an entry here, only samples
                 of equal shape are computed together.
    outputs      name -> shape and dtype of one sample's output. A network that returns a tuple gives them in this
                 order; a dictionary, by these names.
    postprocess  outputs of the network, on the host -> values, which are also the .npy or .npz response. It may be
                 left out with `outputs`.
    describe     values -> one prediction per row; numbers may be NumPy scalars. By default, with `outputs`, each is a
                 field of the prediction.
    prediction   the TypedDict that `describe` fills; its JSON schema goes into the API documentation.
    explain      attributions (N, *entry.shape) and their method -> named arrays, one row per sample: the fields of an
                 explanation after the first field of the sample's prediction. With named inputs it is called for each
                 input and sample, (1, ...), and each field has its arrays by input.
    features     samples as the network takes them, (N, ...), or named arrays of N samples -> numbers by name, (N,):
                 what drift is measured of; see `models.drift.features` for the default.
    example      a valid value of "inputs", for warm-up, documentation and contract tests: an array of entries, or a
                 list of samples by name, pictures as PIL images or bytes.
    """

    summary: str
    network: Callable[..., "nn.Module"]
    entry: Entry | None = None
    check: Check = accept_all
    preprocess: Callable[[Array], Array] = same
    picture: PictureReader | None = None
    segments: SegmentReader | None = None
    grey: Callable[[Array], Array | None] | None = None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    encode: Callable[..., Mapping[str, Any]] | None = None
    padding: Mapping[str, Padded] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    postprocess: Callable[..., Any] | None = None
    describe: Callable[..., Sequence[Prediction]] | None = None
    prediction: type | None = None
    explain: Callable[[Array, Method], Mapping[str, Array]] = signed
    features: Callable[[Any], Mapping[str, Array]] | None = None
    example: Any

    def __post_init__(self) -> None:
        """Raise ValueError for fields that contradict each other, or an example that does not fit the signature."""
        if not isinstance(self.summary, str) or not self.summary.isprintable():
            raise ValueError("`summary` is not a text in one line")
        if self.prediction is not None and (fault := _prediction_fault(self.prediction)):
            raise ValueError(f"`prediction` is {fault}")
        if (self.entry is None) == (not self.inputs):
            raise ValueError("a ModelSpec has either `entry` or `inputs`")
        if not self.outputs and None in {self.postprocess, self.describe, self.prediction}:
            raise ValueError("a ModelSpec without `outputs` needs `postprocess`, `describe` and `prediction`")
        if self.describe is not None and self.prediction is None:
            raise ValueError("a ModelSpec with `describe` needs `prediction`, the TypedDict that it fills")
        if self.inputs:
            self._check_named()
        fault = self.entry.fault_of(self.example) if self.entry else _example_fault(self.inputs, self.example)
        if fault:
            raise ValueError(f"example: {fault}")

    @property
    def tensor(self) -> Entry:
        """The entry of a one-tensor model."""
        assert self.entry is not None
        return self.entry

    @property
    def is_plain(self) -> bool:
        """Whether samples and values are one array each, and no function needs the artifacts of a version."""
        functions = [function for function in (self.postprocess, self.describe) if function is not None]
        return not self.inputs and not self.outputs and not any(map(takes_artifacts, functions))

    @property
    def is_ragged(self) -> bool:
        """Whether samples may have different lengths."""
        shapes = (kind.shape for kind in self.inputs.values() if isinstance(kind, Tensor | Picture))
        has_texts = any(isinstance(kind, Text) for kind in self.inputs.values())
        return bool(self.padding) or has_texts or any(None in shape for shape in shapes)

    @property
    def ragged_padding(self) -> Mapping[str, Padded] | None:
        """The padding of samples that may have different lengths; None if all have the same."""
        return self.padding if self.is_ragged else None

    def _check_named(self) -> None:
        if self.check is not accept_all or self.preprocess is not same or any((self.picture, self.segments, self.grey)):
            raise ValueError(
                "`check`, `preprocess`, `picture`, `segments` and `grey` belong to `entry`; use `encode` with `inputs`"
            )
        for name, kind in self.inputs.items():
            if not name.isidentifier():
                raise ValueError(f"the input {name!r} must be a Python name")
            if self.encode is None and isinstance(kind, Text):
                raise ValueError(f"the input {name} is a Text: define `encode`, which turns it into arrays")
            if self.encode is None and (fault := default_fault(kind)):
                raise ValueError(f"the default of the input {name}: {fault}; `encode`, if there is one, gets any value")
        if self.encode is None and (unknown := self.padding.keys() - self.inputs.keys()):
            raise ValueError(f"padding of {min(unknown)}, which is no input")
        self._check_outputs()

    def _check_outputs(self) -> None:
        for name, output in self.outputs.items():
            if output.like is not None and output.like not in self.padding:
                raise ValueError(
                    f"the output {name} is like {output.like}, which has no padding: define "
                    f"`padding={{{output.like!r}: Padded()}}`, or leave out `like`"
                )
            if output.like is None or not output.shape:
                continue
            axes, variable = self.padding[output.like].axes, output.shape.count(None)
            if len(axes) != variable:
                raise ValueError(
                    f"the output {name} has {variable} variable axes, and {len(axes)} of {output.like}, which it is "
                    "like, are padded: name all of them in `Padded(axes=...)`, (0, 1) for two"
                )


def _example_fault(inputs: Mapping[str, Input], example: Sequence[Any]) -> str:
    """Say why samples by name, at least one, do not fit the inputs; empty if they do. Pictures are not read."""
    for sample in example:
        values = {next(iter(inputs)): sample} if isinstance(sample, str) else sample
        if unknown := [name for name in values if name not in inputs]:
            return f"it has {unknown[0]}, which is no input"
        for name, kind in inputs.items():
            value = values.get(name)
            if is_missing(value) and is_required(kind):
                return f"it has no {name}, which is required"
            if not is_missing(value) and not isinstance(kind, Picture):
                try:
                    kind.code(value)
                except InvalidInput as err:
                    return f"{name}: {err.detail}"
    return "" if len(example) else "it has no samples"
