"""Erasures of the last day: captures that were still queued then are not written.

A key, which may name a person, is remembered by its digest alone.
"""

from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy import Connection, bindparam, select

from service.store.tables import capture_erasures
from service.telemetry.ids import begun_at

_OF_MODEL = select(capture_erasures).where(capture_erasures.c.model == bindparam("model"))


@dataclass(frozen=True, slots=True)
class Erasures:
    """The predictions of one model that were erased: by id, by key, or all that began before a time."""

    ids: frozenset[str]
    keys: frozenset[str]  # digests
    until: float

    @classmethod
    def of(cls, connection: Connection, model: str) -> "Erasures":
        """Read the erasures of a model."""
        found = connection.execute(_OF_MODEL, {"model": model}).all()
        return cls(
            frozenset(one.id for one in found if one.id is not None),
            frozenset(one.key for one in found if one.key is not None),
            max((one.until for one in found if one.until is not None), default=0.0),
        )

    def has(self, prediction: str, key: str | None = None) -> bool:
        """Return whether a prediction was erased."""
        by_time = self.until > 0 and begun_at(prediction) < self.until
        by_key = bool(self.keys) and key is not None and key_digest(key) in self.keys
        return prediction in self.ids or by_key or by_time


def key_digest(key: str) -> str:
    """Return the digest of an erased key."""
    return blake2b(key.encode(), digest_size=32).hexdigest()
