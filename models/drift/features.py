"""Standard features of samples: named numbers whose distribution shows that inputs have changed.

They are computed from samples as the network takes them, which are the same arrays in training and in service.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.reference import Features as RangeOfFeatures
from models.reference import Reference as RangeCheck
from models.samples import Batch, Column, Columns
from models.signature import Category
from models.spec import ModelSpec

MOST = 64  # features of a model
_SIDE = 8  # px: a smaller array is not taken for a picture
_CHANNELS = 4
_INK = 0.4  # of the range between the darkest and the brightest pixel: pixels above are ink
Array = NDArray[Any]
Named = Mapping[str, Array]


def features_of(spec: ModelSpec) -> Callable[[Batch], Named]:
    """Return the function from samples to named numbers (N,): the spec's `features`, or the standard ones."""
    if spec.features is not None:
        own = spec.features
        return lambda samples: dict(own(samples.arrays if isinstance(samples, Columns) else samples))
    names = _names(spec)
    return lambda samples: standard(samples, names)


def standard(samples: Batch, names: Sequence[str] = ()) -> dict[str, Array]:
    """Return at most MOST features of samples.

    Single numbers and categories themselves, each number of a row of at most MOST, of pictures their ink (see `ink`),
    of other arrays mean, spread, least and greatest number, and their length if it varies. `names` are those of a row.
    """
    if not isinstance(samples, Columns):
        return _first(_of_column("", samples, names))
    found: dict[str, Array] = {}
    for name, column in samples.arrays.items():
        found |= _of_column(name, column, ())
    return _first(found)


def labels_of(spec: ModelSpec) -> Mapping[str, Sequence[object]]:
    """Return the values of the features that are codes of categories, by name."""
    if spec.features is not None or spec.encode is not None:
        return {}
    return {name: kind.values for name, kind in spec.inputs.items() if isinstance(kind, Category)}


def ink(name: str, pixels: Array) -> dict[str, Array]:
    """Measure pictures (N, height, width): mean level, maximum, and of the pixels above 0.4 of the range their share,
    and the height and width of their bounding box, as shares of those of the picture.
    """
    count, height, width = pixels.shape
    flat = pixels.reshape(count, -1)
    least, most = flat.min(axis=1).astype(np.float64), flat.max(axis=1).astype(np.float64)
    marks = pixels > (least + _INK * (most - least))[:, None, None]
    return {
        f"{name}ink mean": flat.mean(axis=1),
        f"{name}ink area": marks.reshape(count, -1).mean(axis=1),
        f"{name}box height": _extent(marks.any(axis=2)) / height,
        f"{name}box width": _extent(marks.any(axis=1)) / width,
        f"{name}maximum": most,
    }


def _extent(marked: Array) -> Array:
    """Return how far apart the first and the last mark are, in marks (N, length): 0 if there is none."""
    length = marked.shape[1]
    first, last = marked.argmax(axis=1), length - marked[:, ::-1].argmax(axis=1)
    return np.where(marked.any(axis=1), last - first, 0)


def _of_column(name: str, column: Column, names: Sequence[str]) -> dict[str, Array]:
    lead = f"{name} " if name else ""
    if isinstance(column, list):
        return _of_ragged(lead, column)
    if column.ndim == 1:
        return {name or "feature 0": column}
    if column.ndim == 2 and column.shape[1] <= MOST:
        named = (names[place] if place < len(names) else f"{lead}feature {place}" for place in range(column.shape[1]))
        return {one: column[:, place] for place, one in enumerate(named)}
    pixels = _pixels(column)
    return _moments(lead, column.reshape(len(column), -1)) if pixels is None else ink(lead, pixels)


def _pixels(array: Array) -> Array | None:
    """Return pictures as (N, height, width), the mean of their channels; None if the array holds no pictures."""
    if array.ndim == 4 and array.shape[1] <= _CHANNELS:
        array = array[:, 0] if array.shape[1] == 1 else array.mean(axis=1)
    elif array.ndim == 4 and array.shape[3] <= _CHANNELS:
        array = array[..., 0] if array.shape[3] == 1 else array.mean(axis=3)
    return array if array.ndim == 3 and min(array.shape[1:]) >= _SIDE else None


def _moments(lead: str, numbers: Array) -> dict[str, Array]:
    """Measure arrays (N, k)."""
    return {
        f"{lead}mean": numbers.mean(axis=1),
        f"{lead}spread": numbers.std(axis=1),
        f"{lead}least": numbers.min(axis=1),
        f"{lead}greatest": numbers.max(axis=1),
    }


def _of_ragged(lead: str, column: Sequence[Array]) -> dict[str, Array]:
    """Measure N arrays of different shapes."""
    rows = [_moments(lead, row.reshape(1, -1)) if row.size else {} for row in column]
    names = next((list(row) for row in rows if row), [])
    found = {name: np.array([row[name][0] if row else np.nan for row in rows], np.float64) for name in names}
    return {f"{lead}length": np.array([len(row) for row in column]), **found}


def _first(found: dict[str, Array]) -> dict[str, Array]:
    return dict(list(found.items())[:MOST])


def _names(spec: ModelSpec) -> Sequence[str]:
    """Return the names of the numbers of a row, if the spec's check has them."""
    groups = spec.check.groups if isinstance(spec.check, RangeCheck) else ()
    ranges = [one for _, statistics in groups for one in statistics if isinstance(one, RangeOfFeatures)]
    return next((one.names for one in ranges if one.names), ())
