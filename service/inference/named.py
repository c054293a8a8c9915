"""Bodies of models with named inputs: JSON, .npz, .npy, forms and single pictures -> samples, coded one by one.

No HTTP in this module. The readers return the samples as mappings of values by name, not checked yet; null and absent
values are left to the input's default.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from models.coding import Coder, Given, OpenPicture, array_input, picture_input, value_of_text
from models.entries import MAX_SAMPLES, read_npy
from models.errors import InvalidInput, TooManySamples, shown
from models.pictures import PICTURE_FORMATS
from models.samples import Columns
from models.signature import Input, Picture
from models.spec import Array, ModelSpec
from service.inference.npz import read_npz
from service.media_types import JSON, MULTIPART, NPY, NPZ, OCTETS


class Field(Protocol):
    """A field of a form."""

    @property
    def name(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def is_file(self) -> bool: ...


def media_types(spec: ModelSpec) -> list[str]:
    """Return the media types that a model with named inputs accepts, the most convenient first."""
    pictures = [*PICTURE_FORMATS, OCTETS] if picture_input(spec) else []
    has_pictures = any(isinstance(kind, Picture) for kind in spec.inputs.values())
    return [*pictures, *([MULTIPART] if has_pictures else []), JSON, NPZ, *([NPY] if array_input(spec) else [])]


def from_npz(content: bytes, max_bytes: int) -> list[Mapping[str, Any]]:
    """Read an .npz file with an array (N, ...) for each input, of at most `max_bytes` unpacked.

    Raises MalformedInput if it is none, InvalidInput if its arrays do not belong together.
    """
    arrays = read_npz(content, max_bytes)
    counts = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if None in counts.values() or len(set(counts.values())) != 1:
        found = ", ".join(f"{shown(name)} {list(array.shape)}" for name, array in arrays.items())
        raise InvalidInput("Unequal counts", f"the first axis of each array is the samples: {found or 'no arrays'}")
    return _rows(arrays)


def from_npy(content: bytes, spec: ModelSpec) -> list[Mapping[str, Any]]:
    """Read a .npy file with an array (N, ...) for the one input. Raises MalformedInput, InvalidInput."""
    array = read_npy(content)
    name = array_input(spec)
    assert name
    if not array.ndim:
        raise InvalidInput("Wrong shape", "the first axis of the array is the samples; it has no axes")
    return _rows({name: array})


def from_form(fields: Sequence[Field], spec: ModelSpec) -> list[Mapping[str, Any]]:
    """Read a form: each input is a field of its name, repeated in the order of the samples.

    The only field of a model with one picture may have any name. Raises InvalidInput.
    """
    values: dict[str, list[Any]] = {}
    only = next(iter(spec.inputs)) if len(spec.inputs) == 1 else None
    for field in fields:
        name = only or field.name
        if name not in spec.inputs:
            known = ", ".join(spec.inputs)
            raise InvalidInput("Unknown input", f"the form has a field {shown(name)!r}; the fields are {known}")
        if only is None or field.is_file or not isinstance(spec.inputs[only], Picture):
            values.setdefault(name, []).append(_form_value(field, name, spec.inputs[name]))
    counts = {name: len(found) for name, found in values.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} {count} times" for name, count in counts.items()) or "no field"
        raise InvalidInput("Unequal counts", f"send a field of each input for each sample; the form has {found}")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def from_picture(content: bytes, spec: ModelSpec) -> list[Mapping[str, Any]]:
    """Return the one sample of a body that is the bytes of a picture."""
    name = picture_input(spec)
    assert name
    return [{name: content}]


def coded(
    samples: Iterable[object], coder: Coder, open_file: OpenPicture
) -> tuple[Columns | None, Mapping[int, InvalidInput], list[Given]]:
    """Code the samples one by one: the good ones stacked, the error of each other by its position, and the values of
    the good ones before they were encoded.
    """
    good: list[Mapping[str, Array]] = []
    given: list[Given] = []
    errors: dict[int, InvalidInput] = {}
    for position, sample in enumerate(samples):
        try:
            values = coder.values(sample, open_file)
            good.append(coder.encoded(values))
            given.append((sample, values))
        except InvalidInput as err:
            errors[position] = err.alone()
    return Columns.of(good) if good else None, errors, given


def _rows(arrays: Mapping[str, Array]) -> list[Mapping[str, Any]]:
    (count,) = {len(array) for array in arrays.values()}
    if not count:
        raise InvalidInput("Wrong shape", "the arrays have no samples; send at least one")
    if count > MAX_SAMPLES:
        raise TooManySamples(count, MAX_SAMPLES)
    columns = [_column(array) for array in arrays.values()]
    return [dict(zip(arrays, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(array: Array) -> Sequence[Any]:
    """Return the values of an array (N, ...): of one axis as Python numbers and texts, of more as arrays."""
    if array.dtype.kind in "Mm":  # dates and durations in ns become whole numbers in `tolist`
        detail = f"an array has dtype {array.dtype.name}: send numbers, for example the days since a date"
        raise InvalidInput("Wrong dtype", detail)
    if array.dtype.kind == "S":
        with suppress(UnicodeDecodeError):  # else files of pictures; any other input says that it takes no bytes
            array = np.char.decode(array, "utf-8")
    values: Sequence[Any] = array.tolist() if array.ndim == 1 else list(array)
    return values


def _form_value(field: Field, name: str, kind: Input) -> Any:
    """Return a field's value: the bytes of a file for a picture, else what its text says. Raises InvalidInput."""
    if isinstance(kind, Picture) and field.is_file:
        return field.content
    try:
        text = field.content.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput("Wrong value", f"{name}: the field is not a text in UTF-8") from err
    return value_of_text(text, kind)
