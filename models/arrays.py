"""Arrays of numbers from outside: check shape, dtype and bounds of one value; random ones for tests."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInput

Array = NDArray[Any]
Sizes = tuple[int | None, ...]  # of the axes; None is any

RARE = 0.125  # probability of a bound, and of a default, among random values
_BOUNDLESS = 1e9  # a bound beyond it is none for random numbers
_WIDEST = 8.0  # of random numbers without bounds


def of_numbers(value: object, shape: Sizes, dtype: np.dtype[Any], bounds: tuple[float, float]) -> Array:
    """Convert nested lists or an array to an array of that form.

    Raises InvalidInput for another shape, for numbers out of bounds or not whole, and for other values than numbers,
    or than booleans if the dtype is bool.
    """
    words = "booleans" if dtype.kind == "b" else "numbers"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as err:
        raise InvalidInput("Wrong value", f"it must be {words} in shape {sizes(shape)}") from err
    if array.dtype.kind not in ("b" if dtype.kind == "b" else "fiu") or _has_booleans(value, dtype):
        raise InvalidInput("Wrong value", f"it must be {words} in shape {sizes(shape)}")
    if not fits(array.shape, shape):
        raise InvalidInput("Wrong shape", f"it has shape {list(array.shape)}; it must be {sizes(shape)}")
    if dtype.kind == "b":
        return array
    low, high = bounds
    with np.errstate(invalid="ignore"):
        if not ((array >= low) & (array <= high)).all():
            detail = f"every number must be finite and between {low:g} and {high:g}"
            raise InvalidInput("Number out of range", detail)
    if dtype.kind in "iu" and array.dtype.kind == "f" and (np.rint(array) != array).any():
        raise InvalidInput("Not whole", "every number must be whole")
    return array.astype(dtype)


def random_numbers(low: float, high: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return random numbers: now and then a bound, else between them; near the other bound or zero if there is none."""
    lowest = low if low > -_BOUNDLESS else min(-_WIDEST, high - 2 * _WIDEST)
    highest = high if high < _BOUNDLESS else max(_WIDEST, low + 2 * _WIDEST)
    numbers: Array = rng.uniform(lowest, highest, shape)
    for bound in sorted({lowest, highest} & {low, high}):
        numbers = np.where(rng.random(shape) < RARE, bound, numbers)
    return numbers


def fits(shape: tuple[int, ...], wanted: Sizes) -> bool:
    """Return whether a shape has these sizes."""
    return len(shape) == len(wanted) and all(
        one is None or size == one for size, one in zip(shape, wanted, strict=True)
    )


def sizes(shape: Sizes) -> str:
    """Write a shape for a message."""
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _has_booleans(value: object, dtype: np.dtype[Any]) -> bool:
    """Return whether nested lists of numbers have a boolean, which NumPy would read as 1 or 0."""
    if dtype.kind == "b" or not isinstance(value, list):
        return False
    return any(isinstance(item, bool) or _has_booleans(item, dtype) for item in value)
