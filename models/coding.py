"""From one sample of a model with named inputs to the arrays that its network takes. For requests and for training."""

import base64
import binascii
import difflib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import orjson
from PIL.Image import Image

from models.artifacts import Artifacts, bound
from models.defaults import default_of
from models.errors import CheckpointError, InvalidInput, in_one_line, shown
from models.pictures import open_picture
from models.samples import Batch, Columns
from models.signature import Array, Category, Input, Number, Picture, Tensor, Text, is_missing, is_required
from models.spec import ModelSpec

log = logging.getLogger(__name__)
OpenPicture = Callable[[bytes], Image]
Given = tuple[object, Mapping[str, Any]]  # a sample as it came, and its checked values

_STANDARD = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n"
_MAX_PIXELS = 25_000_000  # of a picture in training data and examples


class Coder:
    """Checks and codes samples of one version. The first sample fixes the names and dtypes of the arrays."""

    def __init__(self, spec: ModelSpec, artifacts: Artifacts) -> None:
        self.spec = spec
        self._encode = bound(spec.encode or partial(_each, spec.inputs), artifacts)
        self._dtypes: dict[str, np.dtype[Any]] = {}
        names = list(spec.inputs)
        self._text = names[0] if len(names) == 1 and isinstance(spec.inputs[names[0]], Text) else None

    def __call__(self, sample: object, open_file: OpenPicture | None = None) -> Mapping[str, Array]:
        """Return the arrays of one sample, as `values` takes it. Raises InvalidInput."""
        return self.encoded(self.values(sample, open_file))

    def values(self, sample: object, open_file: OpenPicture | None = None) -> Mapping[str, Any]:
        """Return the checked values of one sample, a mapping of values by name; a single text is taken as well.

        Pictures are PIL images, bytes of a file, base64 of them, or arrays as the input's `read` returns them.
        Raises InvalidInput that names the input, its value and the allowed ones.
        """
        if self._text is not None and isinstance(sample, str):
            sample = {self._text: sample}
        if not isinstance(sample, Mapping):
            raise InvalidInput("Wrong sample", f"send a sample as an object with {_listed(self.spec.inputs)}")
        for name in sample:
            if name not in self.spec.inputs:
                raise _unknown(str(name), self.spec.inputs)
        return {
            name: _checked(name, kind, sample.get(name), open_file or _open) for name, kind in self.spec.inputs.items()
        }

    def encoded(self, values: Mapping[str, Any]) -> Mapping[str, Array]:
        """Return the arrays of the checked values of one sample. Raises InvalidInput."""
        try:
            arrays = self._typed(self._encode(values))
        except InvalidInput:
            raise
        except Exception as err:
            log.warning("a sample could not be encoded", exc_info=True)
            detail = f"the model's encode raised {type(err).__name__} for this sample; the log of the service says why"
            raise InvalidInput("Unreadable sample", detail) from err
        for name in self.spec.padding:
            if name in arrays and not arrays[name].size:
                raise InvalidInput("Empty sample", f"nothing is left of {name} once the sample is encoded")
        return arrays

    def _hint(self, name: str) -> str:
        kind = self.spec.inputs.get(name)
        said = f": `encode` gets the value of the Category {name}. Return its position, VALUES.index(sample[{name!r}])"
        return said if isinstance(kind, Category) else ""

    def _typed(self, encoded: Mapping[str, Any]) -> dict[str, Array]:
        """Convert what `encode` returned to arrays, with the names and dtypes of the first sample."""
        arrays = {name: np.asarray(value) for name, value in encoded.items()}
        if not self._dtypes:
            if wrong := [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]:
                raise TypeError(f"encode returned no numbers under {wrong[0]}{self._hint(wrong[0])}")
            self._dtypes = {
                name: np.dtype(np.float32) if array.dtype == np.float64 else array.dtype
                for name, array in arrays.items()
            }
        if arrays.keys() != self._dtypes.keys():
            raise KeyError(f"encode returned {', '.join(arrays)}; for other samples {', '.join(self._dtypes)}")
        return {
            name: array.astype(self._dtypes[name], casting="same_kind" if array.size else "unsafe", copy=False)
            for name, array in arrays.items()
        }


def as_given(sample: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked values of a sample, None for those that it leaves to their defaults."""
    given = sample if isinstance(sample, Mapping) else values
    return {name: None if is_missing(given.get(name)) else value for name, value in values.items()}


def example_samples(spec: ModelSpec, coder: Coder | None = None) -> Batch:
    """Return the spec's example as the network takes it.

    Raises CheckpointError if the version's `encode` refuses the example.
    """
    if not spec.inputs:
        return spec.preprocess(spec.example)
    coder = coder or Coder(spec, {})
    try:
        return Columns.of([coder(sample) for sample in spec.example])
    except InvalidInput as err:
        cause = err.__cause__
        reason = f" ({type(cause).__name__}: {in_one_line(cause)})" if cause else ""
        raise CheckpointError(f"the model's example does not fit its inputs: {err}{reason}") from err


def picture_input(spec: ModelSpec) -> str | None:
    """Return the one picture that a body of its bytes stands for: all other inputs are optional."""
    pictures = [name for name, kind in spec.inputs.items() if isinstance(kind, Picture)]
    needed = [name for name, kind in spec.inputs.items() if is_required(kind) or isinstance(kind, Picture)]
    return pictures[0] if len(pictures) == 1 and needed == pictures else None


def array_input(spec: ModelSpec) -> str | None:
    """Return the one input of numbers that a .npy body stands for."""
    ((name, kind), *others) = spec.inputs.items()
    return name if isinstance(kind, Number | Tensor | Picture) and not others else None


def value_of_text(text: str, kind: Input) -> Any:
    """Return the value of an input that is given as a text: of a form, or of a cell of a table.

    Texts are taken as they are, other values are JSON. An empty text is the default, unless the input is a text
    without one.
    """
    if isinstance(kind, Category):
        return kind.of_text(text) if text.strip() else None
    if isinstance(kind, Text | Picture):
        return text or (text if isinstance(kind, Text) and is_required(kind) else None)
    if not text.strip():
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # the input names the allowed values


def picture_file(value: str | bytes) -> bytes:
    """Return the bytes of a picture file that is given as such, in base64 of either alphabet, or as a data URL.

    Raises InvalidInput.
    """
    if isinstance(value, bytes):
        return value
    text = value.encode("ascii", "replace")
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    digits = text.translate(_STANDARD, _BLANKS).rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as err:
        raise InvalidInput("No base64", "the picture is neither base64 nor a data URL") from err


def _checked(name: str, kind: Input, value: object, open_file: OpenPicture) -> Any:
    """Return the checked value of one input, or its default. Raises InvalidInput that begins with its name."""
    if is_missing(value):
        if is_required(kind):
            raise InvalidInput("Missing value", f"{name} is missing and has no default", name)
        return default_of(kind)
    try:
        if isinstance(kind, Picture) and isinstance(value, str | bytes):
            value = open_file(picture_file(value))
        return kind.code(value)
    except InvalidInput as err:
        raise InvalidInput(err.title, f"{name}: {err.detail}", name) from err


def _each(inputs: Mapping[str, Input], values: Mapping[str, Any]) -> Mapping[str, Array]:
    """Default `encode`: one array for each input."""
    return {name: kind.array(values[name]) for name, kind in inputs.items()}


def _unknown(name: str, inputs: Mapping[str, Input]) -> InvalidInput:
    near = difflib.get_close_matches(name, inputs, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {_listed(inputs)}"
    return InvalidInput("Unknown input", f"the model has no input {shown(name)!r}{hint}", name)


def _listed(inputs: Mapping[str, Input]) -> str:
    return ", ".join(name if is_required(kind) else f"{name} (optional)" for name, kind in inputs.items())


def _open(content: bytes) -> Image:
    return open_picture(content, _MAX_PIXELS)
