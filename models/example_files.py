"""Files of examples that are decoded already: .npz for arrays, JSON Lines for samples by name.

The ingest of such a file decodes the samples that were written. The same examples make the same bytes.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.dataset_options import DatasetOptions
from models.signature import Picture
from models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Example:
    """A sample as an entry of a request (an array, or values by name), its target, and its split, empty if free."""

    entry: Any
    target: Any
    split: str = ""


def write_examples(path: Path, spec: ModelSpec, examples: Iterable[Example]) -> DatasetOptions:
    """Write a file of examples, at least one. Returns the options to read it by.

    Raises OSError, and ValueError for a value that no file can hold, or targets of different lengths.
    """
    if spec.inputs:
        return _write_lines(path, spec, examples)
    found = list(examples)
    samples = np.stack([np.asarray(one.entry) for one in found])
    targets, splits = np.array([one.target for one in found]), np.array([one.split for one in found])
    with path.open("wb") as file:
        np.savez(file, x=samples, y=targets, split=splits)
    return DatasetOptions(label_column="y", split_column="split")


def _write_lines(path: Path, spec: ModelSpec, examples: Iterable[Example]) -> DatasetOptions:
    label, split = _free("truth", spec), _free("split", spec)
    with path.open("w", encoding="utf-8") as file:
        for one in examples:
            entry = one.entry if isinstance(one.entry, Mapping) else {next(iter(spec.inputs)): one.entry}
            row = {name: _plain(value, spec, name) for name, value in entry.items()}
            file.write(json.dumps({**row, label: _plain(one.target, spec), split: one.split}, allow_nan=False) + "\n")
    return DatasetOptions(label_column=label, split_column=split)


def _free(name: str, spec: ModelSpec) -> str:
    """Return a name that is none of the inputs."""
    while name in spec.inputs:
        name += "_"
    return name


def _plain(value: Any, spec: ModelSpec, name: str = "") -> Any:
    """Return a value as JSON has it; a picture as base64 of a file."""
    if isinstance(spec.inputs.get(name), Picture):
        if isinstance(value, np.ndarray):
            value = Image.fromarray(value)
        if isinstance(value, Image.Image):
            file = io.BytesIO()
            value.save(file, "PNG")
            value = file.getvalue()
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return None if isinstance(value, float) and np.isnan(value) else value
