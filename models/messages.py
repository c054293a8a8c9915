"""Typed orders to, and results of, the torch subprocess."""

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints.record import Record
from models.checkpoints.storage import export_path
from models.spec import Array


def packed(array: Array) -> str:
    """An array as it stands in a JSON line: between the process that explains and the one that answers."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def unpacked(text: str) -> Array:
    """The opposite of `packed`."""
    array: Array = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return array


Order = Mapping[str, Any]


Message = Mapping[str, Any]


def order(store: Path, model: str, path: Path, record: Record) -> Message:
    """What a child is to do."""
    to = export_path(store, record)
    return {
        "op": "export",
        "model": model,
        "path": str(path.resolve()),
        "record": asdict(record),
        "to": str(to.resolve()),
    }
