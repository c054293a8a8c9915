"""Targets of rows: labels, which become positions in the list of all labels, or values."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from models.errors import InvalidInput, shown

Target = Literal["label", "value"]
_LISTED = 12
_MOST_VALUES = 10_000
_LARGEST = float(np.finfo(np.float32).max)


def label_of(raw: object, known: Sequence[str] | None) -> str:
    """Return the label of a row as text: 3, 3.0 and "3" are the same. Raises InvalidInput."""
    text = _text(raw)
    if not text:
        raise InvalidInput("Missing label", "the row has no label")
    if len(text) > 1_000:
        raise InvalidInput("Wrong label", "the label has more than 1,000 characters")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInput("Wrong label", "the label is not valid UTF-8")
    if "\0" in text:  # it is data of a broken file, and ends a name in C
        raise InvalidInput("Wrong label", "the label has the character NUL")
    if known is not None and text not in known:
        listed = ", ".join(known[:_LISTED]) + (f" and {len(known) - _LISTED} more" if len(known) > _LISTED else "")
        raise InvalidInput("Unknown label", f"{shown(text)!r} is none of the model's labels: {listed}")
    return text


def group_of(raw: object) -> str | None:
    """Return the group of a row as text: 3, 3.0 and "3" are the same; None if it has none. Raises InvalidInput."""
    if isinstance(raw, list | dict | np.ndarray):
        raise InvalidInput("Wrong group", "the group is a list; it must be one text or number")
    return _text(raw if isinstance(raw, bool | int | float) or raw is None else str(raw)) or None


def values_of(raw: object) -> tuple[float, ...]:
    """Return the value of a row as numbers, one or several. Raises InvalidInput."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        raise InvalidInput("Missing value", "the row has no value to be learnt")
    if isinstance(raw, np.ndarray) and raw.size > _MOST_VALUES:  # before each becomes an object
        raise InvalidInput("Wrong value", f"the row has more than {_MOST_VALUES:,} values to be learnt")
    several = isinstance(raw, list | tuple | np.ndarray)
    numbers = np.ravel(np.asarray(raw, dtype=object)).tolist() if several else [raw]
    if not 1 <= len(numbers) <= _MOST_VALUES:
        raise InvalidInput("Wrong value", "the value to be learnt is no number, and no list of numbers")
    return tuple(_number(number) for number in numbers)


def _text(raw: object) -> str:
    if raw is None or (isinstance(raw, float) and math.isnan(raw)):
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    if isinstance(raw, str | int | float):
        text = str(raw).strip()
        return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text
    raise InvalidInput("Wrong label", "the label is no text and no number")


def _number(raw: Any) -> float:
    try:
        if isinstance(raw, bool) or (isinstance(raw, str) and "_" in raw):
            raise TypeError("no number")
        number = float(raw)
    except (TypeError, ValueError) as err:
        raise InvalidInput("Wrong value", f"{shown(str(raw))!r} is no number, the value to be learnt") from err
    if not -_LARGEST <= number <= _LARGEST:
        raise InvalidInput("Number out of range", f"the value to be learnt is {number:g}: it must be finite")
    return number
