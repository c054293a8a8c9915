"""Rows of captures: samples and answers in the form in which the database keeps them, and back."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from models.coding import as_given
from models.outputs import description
from models.packed_rows import packed_row, unpacked_row
from models.samples import Batch, Columns, finite_rows
from models.spec import ModelSpec
from service.data.said import ONLY, probability_of, said_of
from service.data.sampled import Sampled

log = logging.getLogger(__name__)
MOST_BYTES = 2**20  # of a captured sample with its answer
MOST_ORIGINAL_BYTES = 4 * 2**20
Row = dict[str, Any]  # column of the table -> value


@dataclass(frozen=True, slots=True)
class Origin:
    """What computed an answer: digest of the model's code, and the backend; None if it is not known."""

    code: str | None = None
    backend: str | None = None


def rows_of(one: Sampled, spec: ModelSpec, origin: Origin, originals: Mapping[int, bytes]) -> list[Row]:
    """Return the rows of a request, without samples that are too large, or whose answer is not finite.

    Raises whatever the model's `describe` raises.
    """
    finite = finite_rows(one.values)
    describe = one.describe or description(spec, {})
    predictions = describe(one.values) if finite.all() else [{}] * len(one)
    found = []
    for place, position in enumerate(one.positions):
        if not finite[place]:
            continue
        prediction = predictions[place] or describe(one.values[place : place + 1])[0]
        content, answer = _content(one, place, spec), packed_row(values_of(one.values, place))
        if len(content) + len(answer) > MOST_BYTES:
            continue
        original = originals.get(position)
        if original is not None and len(original) > MOST_ORIGINAL_BYTES:
            original = None
        said = said_of(spec, prediction)
        found.append(
            {
                **_head(one, position, origin),
                "probability": probability_of(said),
                "bytes": len(content) + len(answer) + len(original or b""),
                "said": said,
                "answer": answer,
                "content": content,
                "original": original,
            }
        )
    return found


def _head(one: Sampled, position: int, origin: Origin) -> Row:
    draw = blake2b(f"{one.id} {position}".encode(), digest_size=4).digest()
    return {
        "model": one.model,
        "id": one.id,
        "position": position,
        "version": one.version,
        "at": one.at,
        "key": one.key,
        "media_type": one.media_type,
        "code": origin.code,
        "backend": one.backend or origin.backend,
        "form": one.form,
        "rate": one.rate,
        "draw": int.from_bytes(draw, "big") >> 1,
        "state": "new",
    }


def _content(one: Sampled, place: int, spec: ModelSpec) -> bytes:
    entry = one.entries[place]
    return packed_row(as_given(*entry) if spec.inputs else {ONLY: np.asarray(entry)})


def values_of(values: Batch, place: int) -> dict[str, Any]:
    """Return one answer of several by the names of its outputs, as a row keeps it."""
    if isinstance(values, Columns):
        return {name: np.asarray(array) for name, array in values.sample(place).items()}
    return {ONLY: np.asarray(values[place])}


def entry_of(content: bytes) -> Any:
    """Return a sample as its spec checked it: an entry, or values by name, None for those left to their defaults."""
    values = unpacked_row(content)
    return values.get(ONLY, values)
