"""Entries of one-tensor models: from JSON, .npy files, numbers and pictures. For requests and for training.

No HTTP in this module, and no network.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import orjson
from PIL.Image import Image, fromarray

from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.picture_files.plain import read_plain_png
from models.pictures import format_of, open_picture
from models.reference import Check
from models.segments import Place
from models.signature import read_picture
from models.spec import Array, Entry, ModelSpec

HOW_TO_SEND_PICTURES = (
    "To send a picture, send the bytes of its file as the body, with Content-Type: image/png; several as files of a "
    "multipart form. Base64 and data URLs are not read"
)
MAX_SAMPLES = 16_384  # in one body: bounds the size of the answer, which the size of the body does not
_AS_TEXT = (b"data:", b"ivborw0kggo", b"/9j/", b"r0lgod", b"uklgr", b"qk")  # data URLs; base64 of all formats
_QUOTES = b" \t\r\n\"'"
_MAX_DEPTH = 64  # of nested lists: the most dimensions that a NumPy array can have
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER_LIMIT = 4096  # bytes; NumPy's own is 10,000. An ordinary header has about 120.
_SHORT_HEADER = 256  # bytes, of a header that is remembered
NpyHeader = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, whether in Fortran order, dtype


@dataclass(frozen=True, slots=True)
class Entries:
    """A parsed body: the good entries in order, stacked, and the error of each other entry by its position."""

    good: Array
    errors: Mapping[int, InvalidInput] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.good) + len(self.errors)


def from_json(content: bytes, entry: Entry) -> Entries:
    """Parse `{"inputs": [...]}` into entries (N, *shape). A bad entry fails alone.

    Raises MalformedInput if the body is not JSON, InvalidInput if it has no list of inputs.
    """
    inputs = inputs_in(content)
    if (b"e" in content and (b"true" in content or b"false" in content)) or content.count(b'"') > 2:
        return _one_by_one(
            inputs,
            entry,
        )  # NumPy would read [true, 2] as [1, 2], and ["text", 2] as two strings of that length
    return _together(inputs, entry)


def inputs_in(content: bytes) -> list[Any]:
    """Return the list in a body `{"inputs": [...]}`.

    Raises MalformedInput if the body is not JSON, InvalidInput if it has no list of inputs.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as err:
        raise MalformedInput("Malformed JSON", f"the body is not valid JSON: {err}") from err
    if not isinstance(body, dict) or set(body) != {"inputs"}:
        raise InvalidInput("Wrong body", 'send a JSON object with the one field "inputs": {"inputs": [...]}')
    inputs = body["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("Wrong inputs", '"inputs" must be a list of at least one sample')
    if len(inputs) > MAX_SAMPLES:
        raise TooManySamples(len(inputs), MAX_SAMPLES)
    return inputs


def from_npy(content: bytes, entry: Entry) -> Entries:
    """Parse a .npy file with an array (N, *shape) into entries. Pickled arrays are refused.

    Raises MalformedInput if the bytes are not a .npy file, InvalidInput if shape or dtype do not fit.
    """
    return from_array(read_npy(content), entry)


def from_array(array: Array, entry: Entry) -> Entries:
    """Convert an array (N, *shape) into entries. An entry with a number out of bounds fails alone.

    Raises InvalidInput if shape or dtype do not fit.
    """
    if array.ndim == 0 or array.shape[1:] != entry.shape or len(array) == 0:
        single = ": send a single sample as a list of one, array[None]" if array.shape == entry.shape else ""
        detail = f"the array has shape {array.shape}; send a {_wanted(entry)}, N at least 1{single}"
        raise InvalidInput("Wrong shape", detail)
    if len(array) > MAX_SAMPLES:
        raise TooManySamples(len(array), MAX_SAMPLES)
    if array.dtype == entry.dtype and entry.dtype.kind == "u":
        return Entries(array)
    if entry.dtype.kind == "u" or array.dtype.kind not in "fiu":
        scaled = "; multiply values from 0 to 1 by 255 first" if array.dtype.kind == "f" and entry.high == 255 else ""
        raise InvalidInput("Wrong dtype", f"the array has dtype {array.dtype.name}; send a {_wanted(entry)}{scaled}")
    return _in_range(array, entry)


def _wanted(entry: Entry) -> str:
    return f"{entry.dtype.name} array of shape (N{''.join(f', {size}' for size in entry.shape)})"


def picture_or_entry(content: bytes, spec: ModelSpec, max_pixels: int) -> Image | Array:
    """Open a picture; return its entry instead if `spec.grey` reads it, the fast path. Raises InvalidInput.

    The format is detected from the bytes: clients often declare another one. A small grey PNG is decoded.
    """
    if spec.grey is not None:
        pixels = read_plain_png(content)
        if pixels is not None and pixels.size <= max_pixels:
            entry = spec.grey(pixels)
            return fromarray(pixels) if entry is None else entry
    if format_of(content) is None and content[:64].lstrip(_QUOTES).lower().startswith(_AS_TEXT):
        raise InvalidInput("No picture", f"the picture is written as text. {HOW_TO_SEND_PICTURES}")
    return open_picture(content, max_pixels)


def from_picture(picture: Image, spec: ModelSpec) -> Array:
    """Decode an opened picture into one entry. Raises InvalidInput, whatever the model's reader raises."""
    assert spec.picture
    return read_picture(spec.picture, picture)


def from_segments(picture: Image, spec: ModelSpec) -> tuple[Entries, list[Place]]:
    """Decode the samples in an opened picture, and their places. Raises InvalidInput, whatever the model's reader
    raises.
    """
    assert spec.segments
    found = read_picture(spec.segments, picture)
    good = [entry for entry, _ in found if not isinstance(entry, InvalidInput)]
    errors = {at: entry for at, (entry, _) in enumerate(found) if isinstance(entry, InvalidInput)}
    return stacked(good, errors, spec.tensor), [place for _, place in found]


def checked(entries: Entries, check: Check) -> Entries:
    """Run the model's check on the good entries: those that it refuses become errors in their places."""
    found = check(entries.good) if len(entries.good) else {}
    if not found:
        return entries
    places = [place for place in range(len(entries)) if place not in entries.errors]
    kept = np.ones(len(entries.good), bool)
    kept[list(found)] = False
    refused = {places[position]: error for position, error in found.items()}
    return Entries(entries.good[kept], {**entries.errors, **refused})


def read_npy(content: bytes) -> Array:
    """Parse a .npy file without a copy. Raises MalformedInput, or InvalidInput for a pickled array."""
    if not content.startswith(_NPY_MAGIC):
        raise MalformedInput("No .npy file", "the body is not a .npy file; write it with numpy.save")
    (shape, fortran, dtype), begin = _header_of(content)
    size = math.prod(shape) * dtype.itemsize
    rest = len(content) - begin
    if min(shape, default=0) < 0 or size != rest or dtype.itemsize == 0:
        raise MalformedInput("Wrong length", f"the .npy header promises {size} bytes of data, the body has {rest}")
    flat = np.frombuffer(content, dtype=dtype, offset=begin)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header_of(content: bytes) -> tuple[NpyHeader, int]:
    """Return the header of a .npy file, and where its data begins. NumPy needs 15 µs for it, so it is remembered."""
    end = 10 + int.from_bytes(content[8:10], "little")
    if content[6:8] == b"\x01\x00" and end <= _SHORT_HEADER:
        return _short_header(content[:end]), end
    file = io.BytesIO(content)
    return npy_header(file), file.tell()


@lru_cache(64)
def _short_header(head: bytes) -> NpyHeader:
    return npy_header(io.BytesIO(head))


def npy_header(file: BinaryIO) -> NpyHeader:
    """Read the header of a .npy file: shape, whether in Fortran order, dtype.

    Raises MalformedInput, or InvalidInput for a pickled array.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_NPY_HEADER_LIMIT)
    except (ValueError, SyntaxError, EOFError, TypeError, RecursionError, MemoryError, TokenError) as err:
        raise MalformedInput("No .npy file", "the header of the .npy file cannot be read") from err
    if dtype.hasobject:
        raise InvalidInput("Pickled array", "arrays of Python objects are refused; send numbers")
    return shape, fortran, dtype


def _together(inputs: list[Any], entry: Entry) -> Entries:
    """Convert all entries at once; if they differ in form, convert them one by one to find the bad ones."""
    if entry.dtype == np.uint8 and len(entry.shape) == 2 and (pixels := _pixels(inputs, *entry.shape)) is not None:
        return Entries(pixels)
    try:
        array = _numbers(inputs)
    except (ValueError, TypeError, OverflowError):
        return _one_by_one(inputs, entry)
    return _in_range(array, entry) if array.shape[1:] == entry.shape else _one_by_one(inputs, entry)


def _pixels(inputs: list[Any], height: int, width: int) -> Array | None:
    """Convert rows of whole numbers from 0 to 255, no booleans among them, to uint8; None if they are anything else.

    An eighth of the time that NumPy takes for nested lists.
    """
    try:
        if set(map(len, inputs)) != {height}:
            return None
        rows = list(chain.from_iterable(inputs))
        if set(map(len, rows)) != {width}:
            return None
        flat = b"".join(map(bytes, rows))
    except (ValueError, TypeError):
        return None
    return np.frombuffer(flat, np.uint8).reshape(len(inputs), height, width)


def _one_by_one(inputs: list[Any], entry: Entry) -> Entries:
    good: list[Array] = []
    errors: dict[int, InvalidInput] = {}
    for position, value in enumerate(inputs):
        try:
            good.append(from_value(value, entry))
        except InvalidInput as err:
            errors[position] = err.alone()
    return stacked(good, errors, entry)


def stacked(good: Sequence[Array], errors: Mapping[int, InvalidInput], entry: Entry) -> Entries:
    """Stack entries that were parsed one by one."""
    if len(good) == 1:
        return Entries(good[0][None], errors)
    return Entries(np.stack(good) if good else np.empty((0, *entry.shape), entry.dtype), errors)


def from_value(value: Any, entry: Entry) -> Array:
    """Convert one entry of a JSON body: nested lists of numbers. Raises InvalidInput."""
    shape = list(entry.shape)
    try:
        if _has_other_than_numbers(value):
            raise TypeError("booleans and strings are not numbers")
        array = _numbers(value)
    except (ValueError, TypeError, OverflowError) as err:
        raise InvalidInput("Wrong sample", f"a sample must be numbers in shape {shape}") from err
    if array.shape != entry.shape:
        single = ": send a single sample as a list of one" if list(array.shape) == shape[1:] else ""
        raise InvalidInput("Wrong shape", f"the sample has shape {list(array.shape)}; it must be {shape}{single}")
    entries = _in_range(array[None], entry)
    if entries.errors:
        raise entries.errors[0]
    sample: Array = entries.good[0]
    return sample


def _numbers(value: Any) -> Array:
    """Convert nested lists of numbers to float64. Raises TypeError for other values, ValueError for ragged lists."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError("not numbers alone")
    return array.astype(np.float64, copy=False)


def _has_other_than_numbers(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth > _MAX_DEPTH or any(_has_other_than_numbers(item, depth + 1) for item in value)
    return isinstance(value, bool | str)


def _in_range(array: Array, entry: Entry) -> Entries:
    """Convert entries (N, *shape) of any real dtype to the entry's dtype. An entry with a number out of bounds fails
    alone.
    """
    if array.dtype.itemsize < 4:
        array = array.astype(np.float32)  # float16 cannot represent the bounds
    flat = array.reshape(len(array), -1)
    with np.errstate(invalid="ignore"):
        bad: Array = ~np.all((flat >= entry.low) & (flat <= entry.high), axis=1)
    rounded = np.rint(array) if entry.dtype.kind == "u" else array
    detail = f"every number must be finite and between {entry.low:g} and {entry.high:g}"
    errors = {int(position): InvalidInput("Number out of range", detail) for position in bad.nonzero()[0]}
    if entry.dtype.kind == "i" and array.dtype.kind == "f":
        broken: Array = ~bad & np.any(np.rint(flat) != flat, axis=1)
        errors |= {int(at): InvalidInput("Not whole", "every number must be whole") for at in broken.nonzero()[0]}
        bad |= broken
    if not errors:
        return Entries(rounded.astype(entry.dtype))
    return Entries(rounded[~bad].astype(entry.dtype), errors)
