"""Defaults of optional inputs: the value of a sample that has none."""

from typing import Any

import numpy as np

from models import arrays
from models.errors import InvalidInput
from models.signature import Input, Number, Tensor, is_missing, is_required


def default_of(kind: Input) -> Any:
    """Return the default of an optional input: that of a Tensor as an array of its dtype, unless it is None."""
    if isinstance(kind, Tensor) and kind.default is not None:
        return np.asarray(kind.default, kind.dtype)
    return np.asarray(kind.default) if isinstance(kind.default, list | tuple) else kind.default


def default_fault(kind: Input) -> str | None:
    """Return why the network cannot take an input's default unchanged, without an `encode`; None if it can."""
    if is_required(kind) or (isinstance(kind, Number) and is_missing(kind.default)):
        return None
    if isinstance(kind, Tensor):
        return None if _fits(kind) else f"it must be {np.dtype(kind.dtype).name} of shape {arrays.sizes(kind.shape)}"
    try:
        kind.code(default_of(kind))
    except InvalidInput as err:
        return err.detail
    return None


def _fits(kind: Tensor) -> bool:
    """Return whether the default has the dtype and shape of a Tensor. It may be NaN, unlike the numbers of a body."""
    try:
        default = default_of(kind)
    except (ValueError, TypeError):
        return False
    return default is not None and arrays.fits(default.shape, kind.shape)
