"""Faults of the database, the store folder and the object store: classification of the drivers' errors, and the state
of each part.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.checkpoints.files import unwritable
from models.errors import ObjectsUnavailable
from service.errors import ObjectsAway, StoreUnavailable

log = logging.getLogger(__name__)

Part = Literal["reads", "writes", "files", "objects"]
Kind = Literal[
    "unreachable", "silent", "connections", "read_only", "denied", "full", "locked", "damaged", "files", "objects"
]

_RETRY_S = 1.0  # after a caller's wait timed out, the others are refused at once for this long
_TRIAL_S = 10.0  # for which they are refused while one caller tries again
_DETAILS: Mapping[Kind, str] = {
    "unreachable": "the database cannot be reached or used",
    "silent": "the database does not answer",
    "connections": "the database has no free connection",
    "read_only": "the database is read-only, as after a fail-over",
    "denied": "the database refuses access: the role lacks rights on the tables",
    "full": "the disk of the database is full: free some space",
    "locked": "another process holds the write lock of the database",
    "damaged": "the database is damaged: restore a backup",
}
# Beginnings of SQLSTATE codes (PostgreSQL) and of result codes (SQLite); the longest one that fits decides.
_CODES: Mapping[str, Kind] = {
    "08": "unreachable",
    "25006": "read_only",
    "25P0": "unreachable",  # a session that was ended for an idle transaction
    "40": "locked",
    "42501": "denied",
    "53": "unreachable",
    "53100": "full",
    "533": "connections",
    "534": "connections",
    "55": "unreachable",
    "55P03": "locked",
    "57": "unreachable",
    "57014": "silent",
    "58": "unreachable",
    "XX": "unreachable",
    "XX001": "damaged",
    "XX002": "damaged",
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_FULL": "full",
    "SQLITE_READONLY": "read_only",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_NOTADB": "damaged",
}


class Silence(Exception):
    """Mixed into a driver's error: the server gave no answer within the time limit."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. Clients see `detail`."""

    kind: Kind
    detail: str


def classify(err: SQLAlchemyError) -> Fault | None:
    """Return the operational fault that an error reports; None for an error of the statement or its data."""
    if isinstance(err, PoolTimeout):  # of the connection pool
        return _fault("connections")
    if not isinstance(err, DBAPIError):
        return None
    if isinstance(err.orig, Silence):
        return _fault("silent")
    code = str(getattr(err.orig, "sqlstate", None) or getattr(err.orig, "sqlite_errorname", ""))
    fitting = [beginning for beginning in _CODES if code.startswith(beginning)]
    if fitting:
        return _fault(_CODES[max(fitting, key=len)])
    operational = isinstance(err, OperationalError | InterfaceError | InternalError) or err.connection_invalidated
    return _fault("unreachable") if operational else None


def _fault_of(part: Part, err: SQLAlchemyError | OSError | StoreUnavailable | ObjectsUnavailable) -> Fault | None:
    """Return the fault of this part that an error reports, if it is one."""
    if part == "objects":
        return Fault("objects", str(err)) if isinstance(err, ObjectsUnavailable) else None
    if part != "files":
        return classify(err) if isinstance(err, SQLAlchemyError) else None
    if isinstance(err, SQLAlchemyError | ObjectsUnavailable):
        return None
    return Fault("files", unwritable(err) if isinstance(err, OSError) else err.detail)


def _unavailable(part: Part, fault: Fault, why: str = "") -> StoreUnavailable:
    return ObjectsAway(fault.detail, why) if part == "objects" else StoreUnavailable(fault.detail)


def _fault(kind: Kind) -> Fault:
    return Fault(kind, f"{_DETAILS[kind]}; try again in a few seconds")


class Condition:
    """The faults that the store has now, by part. Logs when a part fails and when it works again.

    A circuit breaker: after a caller's wait for an answer or for the lock timed out, the others are refused at once,
    until one of them, which tries again, succeeds.
    """

    def __init__(self, on_failed_write: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._on_failed_write = on_failed_write
        self._now = now
        self._turn = threading.Lock()
        self._faults: dict[Part, Fault] = {}
        self._retry_at: dict[Part, float] = {}

    @property
    def faults(self) -> Mapping[Part, str]:
        """Return the detail of the fault of each part that does not work."""
        return {part: fault.detail for part, fault in list(self._faults.items())}

    @contextmanager
    def watched(self, part: Part, *, counts: bool = True) -> Iterator[None]:
        """Note the outcome of an access, and count it if it is a failed write.

        Raises StoreUnavailable; for the part "objects", ObjectsAway.
        """
        self._admit(part, counts=counts)
        try:
            yield
        except (SQLAlchemyError, OSError, StoreUnavailable, ObjectsUnavailable) as err:
            fault = _fault_of(part, err)
            if fault is None:
                self._succeeded(part)
                raise
            self._failed(part, fault, err, counts=counts)
            raise _unavailable(part, fault, err.why if isinstance(err, ObjectsUnavailable) else "") from err
        except BaseException:
            self._succeeded(part)  # what failed was not the store
            raise
        self._succeeded(part)

    def _admit(self, part: Part, *, counts: bool) -> None:
        with self._turn:
            now = self._now()
            if part not in self._retry_at:
                return
            if now >= self._retry_at[part]:
                self._retry_at[part] = now + _TRIAL_S
                return
            fault = self._faults.get(part) or _fault("silent")
        if counts and part != "reads":
            self._on_failed_write(fault.kind)
        raise _unavailable(part, fault)

    def _failed(self, part: Part, fault: Fault, err: Exception, *, counts: bool) -> None:
        with self._turn:
            news = self._faults.get(part) != fault
            self._faults[part] = fault
            self._retry_at.pop(part, None)
            waited: tuple[Part, ...] = ("reads", "writes") if fault.kind == "silent" else (part,)
            if fault.kind in {"silent", "locked", "objects"}:
                self._retry_at.update(dict.fromkeys(waited, self._now() + _RETRY_S))
        if counts and part != "reads":
            self._on_failed_write(fault.kind)
        if news:
            error = err.why if isinstance(err, ObjectsUnavailable) else str(getattr(err, "orig", None) or err).strip()
            log.warning("store unavailable", extra={"part": part, "reason": fault.detail, "error": error})

    def _succeeded(self, part: Part) -> None:
        with self._turn:
            self._retry_at.pop(part, None)
            fault = self._faults.pop(part, None)
        if fault is not None:
            log.info("store is back", extra={"part": part})
