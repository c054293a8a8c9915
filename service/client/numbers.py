"""Convert Python values and arrays to JSON and .npy, without importing NumPy, torch or pandas unless it is needed."""

import io
import json
import math
from array import array
from collections.abc import AsyncIterable, Iterable, Mapping, Set
from decimal import Decimal
from itertools import islice
from numbers import Integral, Real
from typing import Any
from zipfile import BadZipFile

from service.client.errors import BadArgument, first_line

_MOST_ITEMS = 1_000_000  # of an iterator, which may be endless; the service accepts far fewer samples
_MOST_DEPTH = 64
_NEEDS_CONVERSION = (TypeError, ValueError, OverflowError, RecursionError)
_Place = tuple[object, ...]


def encoded(value: Any, name: str) -> bytes:
    """Encode a value as JSON. Raises BadArgument with the place below `name` if JSON has no such value."""
    try:  # in C: most values need no conversion
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except _NEEDS_CONVERSION:
        try:
            return json.dumps(_plain(value, (name,)), allow_nan=False, ensure_ascii=False).encode()
        except _NEEDS_CONVERSION as err:
            raise BadArgument(f"{name} cannot be sent as JSON ({first_line(err)})") from err


def listed(value: Any) -> list[Any]:
    """Return the items of a sequence, generator or another iterable. Raises BadArgument for other values."""
    if isinstance(value, AsyncIterable):
        raise BadArgument("an asynchronous iterator cannot be sent: collect its items into a list")
    if isinstance(value, Set):
        raise BadArgument("a set has no order: pass a list")
    if isinstance(value, memoryview):
        return _of_memory(value)
    if not isinstance(value, Iterable):
        raise BadArgument(
            f"{_described(value)} is not a list of samples: pass one such as [[0.5]], an array, a picture or a path"
        )
    try:
        items = list(islice(value, _MOST_ITEMS + 1))
    except TypeError as err:  # an array of no dimension
        raise BadArgument(f"{_described(value)} is not a list ({first_line(err)})") from err
    if len(items) > _MOST_ITEMS:
        raise BadArgument(f"an iterator gave more than {_MOST_ITEMS:,} items: send fewer at once")
    return items


def is_array(value: Any) -> bool:
    """Return whether a value is an array, tensor or table of some library, or a scalar of NumPy."""
    return not isinstance(value, type) and any(
        hasattr(value, name) for name in ("__array__", "__array_interface__", "to_numpy")
    )


def as_array(value: Any) -> Any:
    """Convert to a NumPy array. Raises BadArgument, e.g. for masked values."""
    try:
        import numpy as np  # noqa: PLC0415 - an optional dependency: callers with arrays have it
    except ImportError as err:
        raise BadArgument("NumPy is not installed, which arrays need: pass nested lists (tolist)") from err
    try:
        if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
            first = np.argwhere(np.ma.getmaskarray(value))[0].tolist()
            raise BadArgument(f"the array is masked at {first}: give the values to send with filled(...)")
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            return _of_tensor(value)
        return np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, ImportError) as err:
        raise BadArgument(f"the {type(value).__name__} cannot be read as an array ({first_line(err)})") from err


def stacked(items: list[Any]) -> Any:
    """Stack the samples into one array. Raises BadArgument if they differ in shape."""
    import numpy as np  # noqa: PLC0415

    arrays = [as_array(item) for item in items]
    for position, sample in enumerate(arrays):
        if sample.shape != arrays[0].shape:
            raise BadArgument(
                f"the samples differ in shape: sample 0 has {arrays[0].shape}, sample {position} has {sample.shape}"
            )
    return np.stack(arrays)


def npy(samples: Any) -> bytes | None:
    """Encode an array as a .npy file; None if it holds Python objects. Raises BadArgument."""
    import numpy as np  # noqa: PLC0415

    if samples.ndim == 0:
        raise BadArgument(f"{samples.dtype.name} of no dimension: pass an array of samples, or a list such as [[0.5]]")
    if samples.dtype.names:
        raise BadArgument(f"the array has fields ({', '.join(samples.dtype.names)}): pass an array of one number type")
    if samples.dtype.hasobject:
        return None
    try:
        if samples.dtype.kind == "V":  # bfloat16 and other types that NumPy itself does not have
            samples = samples.astype(np.float32)
        elif samples.dtype.kind == "f" and samples.dtype.itemsize > 8:  # not the same on all machines
            samples = samples.astype(np.float64)
        file = io.BytesIO()
        np.save(file, samples, allow_pickle=False)
    except (TypeError, ValueError, RuntimeError) as err:
        raise BadArgument(f"an array of {samples.dtype} cannot be sent ({first_line(err)}): pass numbers") from err
    return file.getvalue()


def npz(arrays: Mapping[str, Any]) -> bytes:
    """Encode arrays of numbers or texts by name as an .npz file."""
    import numpy as np  # noqa: PLC0415

    file = io.BytesIO()
    np.savez(file, **{str(name): array for name, array in arrays.items()})
    return file.getvalue()


def read_arrays(content: bytes) -> dict[str, Any]:
    """Read an .npz file as arrays by name; a .npy file as the array `output`.

    Raises BadArgument without NumPy, ValueError if it is none.
    """
    try:
        import numpy as np  # noqa: PLC0415
    except ImportError as err:
        raise BadArgument("NumPy is not installed, which arrays need: use predict, which returns lists") from err
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return dict(found) if isinstance(found, Mapping) else {"output": found}
    except (BadZipFile, OSError, EOFError) as err:
        raise ValueError("no file of arrays") from err


def _of_tensor(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if getattr(tensor, "is_sparse", False) or getattr(tensor, "is_sparse_csr", False):
        tensor = tensor.to_dense()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16 and float8, which NumPy does not have
        return tensor.float().numpy()


def _plain(value: Any, place: _Place) -> Any:
    """Convert to types of JSON. Raises BadArgument with the place."""
    if len(place) > _MOST_DEPTH:
        raise BadArgument(f"{place[0]} is nested more than {_MOST_DEPTH} deep")
    if isinstance(value, str):
        return _text(value, place)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*place, key)) for key, item in value.items()}
    if is_array(value):
        items = as_array(value).tolist()
        return _plain(items, place)
    if isinstance(value, Real | Decimal):
        return _number(value, place)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable) or isinstance(value, Set):
        raise BadArgument(f"{_at(place)} cannot be sent as JSON: it is {_described(value)}, not a number")
    return [_plain(item, (*place, position)) for position, item in enumerate(listed(value))]


def _number(value: Any, place: _Place) -> float | int:
    try:
        number = float(value)
    except (OverflowError, ValueError):  # beyond float64; a signalling NaN
        number = math.nan
    if not math.isfinite(number):
        raise BadArgument(f"{_at(place)} cannot be sent as JSON: {str(value)[:20]} is not a finite number")
    return int(value) if isinstance(value, Integral) else number


def _text(value: str, place: _Place) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise BadArgument(f"{_at(place)} cannot be sent as JSON: the text is not valid Unicode") from err
    return value


def _of_memory(value: memoryview) -> list[Any]:
    try:
        items: Any = value.tolist()
    except (NotImplementedError, ValueError) as err:
        raise BadArgument(f"a memoryview of format {value.format!r} cannot be read: pass an array") from err
    return items if isinstance(items, list) else [items]


def _at(place: _Place) -> str:
    name, *rest = place
    return f"{name}{''.join(f'[{part!r}]' for part in rest)}"


def _described(value: Any) -> str:
    if isinstance(value, array):
        return f"an array of typecode {value.typecode}"
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {kind}" if isinstance(value, type) else f"a value of type {kind}"
