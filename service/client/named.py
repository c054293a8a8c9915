"""Samples of models with named inputs: dicts, or a dict of columns. Pictures in them become base64."""

import base64
import os
from collections.abc import Mapping
from typing import Any

from service.client import files, numbers, pictures
from service.client.errors import BadArgument

_MISSING = {"NAType", "NaTType"}  # of pandas
_IN_NPZ = "fiubU"  # kinds of dtypes


def sample(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the values of one sample for JSON; NaN and missing values of pandas become null, the input's default.

    A picture is a Pillow image, bytes, an open file or a pathlib.Path; a str is sent as text. Raises BadArgument.
    """
    return {str(name): _value(value) for name, value in given.items()}


def columns(given: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
    """Return a dict of columns as arrays, if all are arrays of numbers or texts, or else as one dict per sample.

    Raises BadArgument.
    """
    for name, column in given.items():
        if not isinstance(column, list | tuple) and not numbers.is_array(column):
            raise BadArgument(
                f"a dict is a dict of columns such as {{{name!r}: [...]}}, {name!r} is of type "
                f"{type(column).__name__}: pass a single sample in a list, [{{{name!r}: ...}}]"
            )
    found = {name: numbers.as_array(one) if numbers.is_array(one) else one for name, one in given.items()}
    counts = {name: _count(name, column) for name, column in found.items()}
    if len(set(counts.values())) != 1:
        described = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        raise BadArgument(f"the columns of a dict have one entry for each sample; their lengths are {described}")
    if all(numbers.is_array(column) and column.dtype.kind in _IN_NPZ for column in found.values()):
        return found
    listed = [column.tolist() if numbers.is_array(column) else column for column in found.values()]
    return [sample(dict(zip(found, row, strict=True))) for row in zip(*listed, strict=True)]


def _count(name: str, column: Any) -> int:
    if numbers.is_array(column) and not column.ndim:
        raise BadArgument(f"the column {name!r} has no axis of samples: pass an array (N, ...)")
    return len(column)


def _value(value: Any) -> Any:
    if pictures.is_picture(value):
        return _base64(pictures.png(value))
    if isinstance(value, os.PathLike) or (files.is_file(value) and not isinstance(value, str)):
        return _base64(files.read(value)[0])
    if type(value).__name__ in _MISSING or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return None
    return value


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def are_words(data: Any) -> bool:
    """Return whether data are strings in a list: texts or file names, depending on the model."""
    given = data["inputs"] if isinstance(data, Mapping) and set(data) == {"inputs"} else data
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(one, str) for one in given)
