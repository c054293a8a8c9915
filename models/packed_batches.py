"""Batches of samples as JSON, in messages."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from models.artifacts import packed, unpacked
from models.samples import Batch, Columns


def _packed_batch(batch: Batch) -> Any:
    if not isinstance(batch, Columns):
        return packed(batch)
    columns = batch.arrays.items()
    return {name: [packed(row) for row in one] if isinstance(one, list) else packed(one) for name, one in columns}


def _unpacked_batch(value: Any) -> Batch:
    if isinstance(value, Columns):
        return value
    if not isinstance(value, Mapping):
        return unpacked(value)
    columns = value.items()
    return Columns(
        {name: [unpacked(row) for row in one] if isinstance(one, list) else unpacked(one) for name, one in columns}
    )


PackedBatch = Annotated[Batch, PlainValidator(_unpacked_batch), PlainSerializer(_packed_batch, when_used="json")]
