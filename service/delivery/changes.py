"""Promotions and rollbacks by hand, each in one transaction."""

import time
from typing import NamedTuple

from service.delivery.registry import Registry
from service.errors import Conflict
from service.store.database import Store


class RolledBack(NamedTuple):
    """The outcome of a rollback. `is_new`: it was made now; not if its key had come before."""

    live: int
    previous: int
    is_new: bool


class Changes:
    """Writes what callers change. Every method raises StoreUnavailable."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    def promote(self, model: str, number: int, *, by: str, expected: int | None) -> int | None:
        """Make a version live, and return the previous one. Raises NotFound, PreconditionFailed."""
        with self._store.write() as connection:
            self._registry.expect_live(connection, model, expected)
            reason = "promoted by hand"
            return self._registry.promote(connection, model, number, by=by, reason=reason, now=time.time())

    def rolled_back(self, model: str, key: str | None) -> tuple[int, int] | None:
        """Return the outcome of the rollback with this idempotency key, if there was one. Raises Invalid."""
        with self._store.read() as connection:
            return self._registry.rolled_back(connection, model, key)

    def roll_back(self, model: str, target: int, *, by: str, expected: int | None, key: str | None) -> RolledBack:
        """Make `target` live, the version before. Raises Conflict if it is not that any more, and as `promote` does."""
        with self._store.write() as connection:
            if (first := self._registry.rolled_back(connection, model, key)) is not None:
                return RolledBack(*first, is_new=False)
            self._registry.expect_live(connection, model, expected)
            reason = "rolled back by hand"
            done = self._registry.rollback(connection, model, by=by, reason=reason, now=time.time(), key=key)
            if done[0] != target:
                raise Conflict(f"another version of {model} went live in this moment: look, then try again")
            return RolledBack(*done, is_new=True)
