"""What becomes of attributions on their way out. NumPy only: what takes torch is in attribution.py."""

import base64
import io

import numpy as np

from models.spec import Array, Method


def saliency(attributions: Array, _: Method) -> dict[str, Array]:
    """How much each pixel counts, whatever its direction: (N, ...) in 0..1, 1 for the pixel that counts most."""
    sizes = np.abs(attributions)
    largest = sizes.max(axis=tuple(range(1, sizes.ndim)), keepdims=True)
    return {"saliency": np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)}


def packed(array: Array) -> str:
    """An array as it stands in a JSON line: between the process that explains and the one that answers."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def unpacked(text: str) -> Array:
    """The opposite of `packed`."""
    array: Array = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return array
