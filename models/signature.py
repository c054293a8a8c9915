"""Typed inputs and outputs of a model with named inputs: its signature.

An input checks one value of one sample, before the queue, so that a bad sample fails alone: `code` returns the checked
value or raises InvalidInput with the value and the allowed ones. An input with a default is optional: null, an absent
value and, for numbers, NaN mean the default.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from models import arrays
from models.errors import InvalidInput, shown

log = logging.getLogger(__name__)
Array = NDArray[Any]
PictureReader = Callable[[Image], Array]
T = TypeVar("T")

_LARGEST = float(np.finfo(np.float32).max)
_LISTED = 12  # names in a message or a description
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz .,'0123456789éß語"))
TRIED_LENGTH = 48  # of random values along a variable axis


class Required(Enum):
    """Type of REQUIRED."""

    REQUIRED = "required"


REQUIRED: Final = Required.REQUIRED  # the default of an input that has none


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, both included. The network gets float32 (N,)."""

    low: float = -_LARGEST
    high: float = _LARGEST
    default: float | Required = REQUIRED

    kind: ClassVar = "number"

    def code(self, value: object) -> float:
        """Return a number as float. Raises InvalidInput."""
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            raise _wrong(value, f"is not a number from {self.low:g} to {self.high:g}")
        if not self.low <= value <= self.high:
            raise InvalidInput("Number out of range", f"{value:g} is not from {self.low:g} to {self.high:g}")
        return float(value)

    def array(self, coded: float) -> Array:
        """Return the network's array of one coded value."""
        return np.asarray(coded, np.float32)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def described(self) -> dict[str, Any]:
        """Return the fields of the input in GET /models."""
        return {"low": self.low, "high": self.high, "shape": [], "dtype": "float32"}

    def random(self, rng: np.random.Generator) -> Any:
        """Return a random value: a bound or a number between them."""
        return float(arrays.random_numbers(self.low, self.high, (), rng))


@dataclass(frozen=True, slots=True)
class Category:
    """One of `values`, texts, whole numbers or booleans. The network gets its position in `values`, int64 (N,)."""

    values: Sequence[str | int]
    default: str | int | Required = REQUIRED
    _places: Mapping[str | int, int] = field(init=False, repr=False, compare=False)

    kind: ClassVar = "category"

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not self.values or len(set(self.values)) < len(self.values):
            raise ValueError("Category takes a list of different values")
        if len({type(value) for value in self.values}) > 1 or type(self.values[0]) not in {str, int, bool}:
            raise ValueError("the values of a Category are all texts, all whole numbers or all booleans")
        object.__setattr__(self, "_places", {value: place for place, value in enumerate(self.values)})

    def code(self, value: object) -> str | int:
        """Return the value if it is one of `values`. Raises InvalidInput."""
        if isinstance(value, np.bool):
            value = bool(value)
        elif isinstance(value, np.integer) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        if type(value) is not type(self.values[0]) or value not in self._places:
            raise _wrong(value, f"is none of {listed(self.values, repr)}")
        return value

    def of_text(self, text: str) -> str | int:
        """Return the value that a text stands for, or the text itself: `3` of whole numbers, `true` of booleans."""
        kind = type(self.values[0])
        if kind is bool:
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        return int(text) if kind is int and _WHOLE.fullmatch(text.strip()) else text

    def array(self, coded: str | int) -> Array:
        """Return the network's array of one coded value."""
        return np.asarray(self._places[coded], np.int64)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value."""
        return {"enum": list(self.values)}

    def described(self) -> dict[str, Any]:
        """Return the fields of the input in GET /models."""
        return {"values": list(self.values), "shape": [], "dtype": "int64"}

    def random(self, rng: np.random.Generator) -> Any:
        """Return one of the values at random."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True, slots=True)
class Text:
    """A text of at most `max_chars` characters. `encode` of the spec must turn it into arrays."""

    max_chars: int = 10_000
    default: str | Required = REQUIRED

    kind: ClassVar = "text"

    def code(self, value: object) -> str:
        """Return the text. Raises InvalidInput."""
        if not isinstance(value, str):
            raise _wrong(value, "is not a text")
        if len(value) > self.max_chars:
            detail = f"the text has {len(value)} characters, at most {self.max_chars} are allowed"
            raise InvalidInput("Text too long", detail)
        return str(value)

    def array(self, _: str) -> Array:
        """Raise TypeError: only the spec's `encode` knows how to turn a text into numbers."""
        raise TypeError("a Text needs an `encode` in the spec")

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value."""
        return {"type": "string", "maxLength": self.max_chars}

    def described(self) -> dict[str, Any]:
        """Return the fields of the input in GET /models."""
        return {"max_chars": self.max_chars, "shape": [], "dtype": "str"}

    def random(self, rng: np.random.Generator) -> Any:
        """Return a random text of letters, digits and spaces, at least one character long."""
        longest = min(self.max_chars, 2 * TRIED_LENGTH)
        return "".join(rng.choice(_LETTERS, int(rng.integers(1, longest + 1))).tolist())


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array of numbers from `low` to `high`; None in `shape` is a variable axis of `shortest` to `longest` elements.

    The network gets arrays (N, *shape) of that dtype, see `Padded` for variable axes.
    """

    shape: tuple[int | None, ...]
    dtype: Any = np.float32
    low: float = -_LARGEST
    high: float = _LARGEST
    default: Any = REQUIRED
    shortest: int = field(default=1, kw_only=True)
    longest: int = field(default=10_000, kw_only=True)

    kind: ClassVar = "tensor"

    def __post_init__(self) -> None:
        if np.dtype(self.dtype).kind not in "fiub":
            raise ValueError(f"the dtype of a Tensor is one of numbers or bool, not {self.dtype}")
        if not 0 <= self.shortest <= self.longest:
            raise ValueError("a Tensor's shortest is at most its longest")

    def code(self, value: object) -> Array:
        """Return the value as an array. Raises InvalidInput."""
        array = arrays.of_numbers(value, self.shape, np.dtype(self.dtype), self.bounds())
        for size, wanted in zip(array.shape, self.shape, strict=True):
            if wanted is None and not self.shortest <= size <= self.longest:
                raise InvalidInput("Wrong length", f"it has {size} elements; send {self.shortest} to {self.longest}")
        return array

    def array(self, coded: Array) -> Array:
        """Return the network's array of one coded value."""
        return coded

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value: nested arrays of bounded numbers."""
        kind = np.dtype(self.dtype).kind
        low, high = self.bounds()
        schema: dict[str, Any] = {"type": "number" if kind == "f" else "integer", "minimum": low, "maximum": high}
        schema = {"type": "boolean"} if kind == "b" else schema
        for size in reversed(self.shape):
            sizes = (self.shortest, self.longest) if size is None else (size, size)
            schema = {"type": "array", "items": schema, "minItems": sizes[0], "maxItems": sizes[1]}
        return schema

    def described(self) -> dict[str, Any]:
        """Return the fields of the input in GET /models."""
        low, high = self.bounds()
        return {"low": low, "high": high, "shape": list(self.shape), "dtype": np.dtype(self.dtype).name}

    def bounds(self) -> tuple[float, float]:
        """Return the bounds of the numbers, those of the dtype included."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return 0, 1
        if dtype.kind == "f":
            return max(self.low, float(np.finfo(dtype).min)), min(self.high, float(np.finfo(dtype).max))
        return max(int(self.low), int(np.iinfo(dtype).min)), min(int(self.high), int(np.iinfo(dtype).max))

    def random(self, rng: np.random.Generator, length: int | None = None) -> Any:
        """Return a random array: variable axes of `length`, or of several lengths, and numbers of the whole range."""
        longest = max(self.shortest, min(self.longest, TRIED_LENGTH))
        shape = tuple(
            size or min(max(length or int(rng.integers(self.shortest, longest + 1)), self.shortest), self.longest)
            for size in self.shape
        )
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return rng.random(shape) < 0.5
        low, high = self.bounds()
        numbers = arrays.random_numbers(low, high, shape, rng)
        return (np.rint(numbers) if dtype.kind in "iu" else numbers).astype(dtype)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture. `read` turns an opened, not yet decoded picture into an array of that shape and dtype.

    None in `shape` is a variable axis. `read` raises InvalidInput for a picture that the model cannot use.
    """

    read: PictureReader
    shape: tuple[int | None, ...]
    dtype: Any = np.uint8
    default: Any = REQUIRED

    kind: ClassVar = "picture"

    def code(self, value: object) -> Array:
        """Return the array of an opened picture, or an array that has the form of one. Raises InvalidInput."""
        array = read_picture(self.read, value) if isinstance(value, Image) else value
        if not isinstance(array, np.ndarray):
            raise InvalidInput("No picture", "send the bytes of a picture, in JSON as base64")
        if not arrays.fits(array.shape, self.shape) or array.dtype != np.dtype(self.dtype):
            wanted = f"{np.dtype(self.dtype).name} {arrays.sizes(self.shape)}"
            detail = f"the picture is an array {array.dtype.name} {list(array.shape)}, the model takes {wanted}"
            raise InvalidInput("Wrong picture", detail)
        return array

    def array(self, coded: Array) -> Array:
        """Return the network's array of one coded value."""
        return coded

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value: the file in base64."""
        return {"type": "string", "contentEncoding": "base64", "description": "a picture file in base64, or a data URL"}

    def described(self) -> dict[str, Any]:
        """Return the fields of the input in GET /models."""
        return {"shape": list(self.shape), "dtype": np.dtype(self.dtype).name}

    def random(self, rng: np.random.Generator) -> Any:
        """Return a random array in the form that `read` returns."""
        shape = tuple(int(rng.integers(1, TRIED_LENGTH + 1)) if size is None else size for size in self.shape)
        if np.dtype(self.dtype).kind == "f":
            return rng.random(shape).astype(self.dtype)
        return rng.integers(0, 256, shape).astype(self.dtype)


Input = Number | Category | Text | Tensor | Picture


@dataclass(frozen=True, slots=True)
class Padded:
    """How arrays of different lengths become one: filled up with `value` at the end of the variable `axes`.

    axes     the variable axes of one sample's array
    lengths  keyword argument of the network's forward that gets the real lengths, int64 (N,), or (N, axes) if several
    mask     keyword argument that gets a mask, bool (N, longest, ...) over the variable axes, True for real elements
    """

    value: float = 0
    lengths: str | None = None
    mask: str | None = None
    axes: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Output:
    """One named output, after `postprocess`: shape and dtype of one sample's array.

    shape    None is a variable axis. If `like` names a padded array, the output is cut to its lengths on these axes.
    labels   names of the classes along the last axis
    picture  the output is a picture, uint8 (height, width) or (height, width, 3), which `Accept: image/png` asks for
    """

    shape: tuple[int | None, ...] = ()
    dtype: Any = np.float32
    labels: Sequence[str] = ()
    picture: bool = False
    like: str | None = None

    def __post_init__(self) -> None:
        if self.labels and self.shape and self.shape[-1] not in {None, len(self.labels)}:
            raise ValueError(f"an output of shape {self.shape} cannot have {len(self.labels)} labels")
        if self.picture and np.dtype(self.dtype) != np.uint8:
            raise ValueError("an output that is a picture has the dtype uint8")

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of one sample's output: nested arrays."""
        kind = {"b": "boolean", "f": "number"}.get(np.dtype(self.dtype).kind, "integer")
        schema: dict[str, Any] = {"type": kind}
        for size in reversed(self.shape):
            sizes = {} if size is None else {"minItems": size, "maxItems": size}
            schema = {"type": "array", "items": schema, **sizes}
        if self.labels:
            schema["description"] = f"of the classes {listed(self.labels)}"
        return schema

    def described(self) -> dict[str, Any]:
        """Return the fields of the output in GET /models."""
        return {
            "dtype": np.dtype(self.dtype).name,
            "shape": list(self.shape),
            "labels": list(self.labels) or None,
            "picture": self.picture,
        }

    def fault(self, array: object) -> str | None:
        """Return why an array of one sample is not of this form; None if it is."""
        if not isinstance(array, np.ndarray | np.generic):
            return f"is of type {type(array).__name__} instead of an array"
        if array.dtype != np.dtype(self.dtype) or not arrays.fits(array.shape, self.shape):
            wanted = f"{np.dtype(self.dtype).name} {arrays.sizes(self.shape)}"
            return f"is {array.dtype.name} {list(array.shape)} for a sample instead of {wanted}"
        return None


def listed(names: Sequence[object], write: Callable[[object], str] = str) -> str:
    """Return the first of some names for a message or a description, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(map(write, names[:_LISTED]))}{more}"


def is_required(kind: Input) -> bool:
    """Return whether an input has no default."""
    return kind.default is REQUIRED


def is_missing(value: object) -> bool:
    """Return whether a value stands for the default: null, or NaN, which arrays have in its place."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def jsonable(value: Any) -> Any:
    """Return a default or an example's value for JSON: arrays as lists; None for NaN and pictures."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if is_missing(value) or not isinstance(value, str | int | float | list | tuple) else value


def read_picture(read: Callable[[Image], T], picture: Image) -> T:
    """Turn an opened picture into an array or segments. Raises InvalidInput, whatever the model's reader raises."""
    try:
        return read(picture)
    except InvalidInput:
        raise
    except Exception as err:
        log.warning("a picture could not be read", exc_info=True)
        detail = "the picture cannot be decoded: it may be damaged. Save it again as PNG and send that"
        raise InvalidInput("Unreadable picture", detail) from err


def _wrong(value: object, said: str) -> InvalidInput:
    if isinstance(value, str | int | float | bool | np.generic):
        words = repr(shown(value)) if isinstance(value, str) else shown(str(value))
    else:
        words = f"a value of type {_TYPES.get(type(value), type(value).__name__)}"
    return InvalidInput("Wrong value", f"{words} {said}")


_TYPES: dict[type, str] = {dict: "object", list: "list"}
