"""PostgreSQL engine: time limits on the server's side, and on this side for a server that stopped answering."""

import math
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Engine, create_engine, event

from service.store.faults import Silence

RV = TypeVar("RV")

_IDLE_MS = 3_000  # a transaction idle for this long is ended, as it would block all writers
_LOCK_MS = 4_000  # more than _IDLE_MS, to outlast a writer that stopped in its transaction
_SILENT_S = 5.0  # more than _LOCK_MS
_CONNECT_S = 3  # for each address of the host
_AGAIN_S = 1.0
_POOL_S = 3.0


class NoAnswer(psycopg.OperationalError, Silence):
    """The server sent nothing within the time limit."""


class Limited(psycopg.Connection[Any]):
    """A connection that is closed when the server sends nothing for `silent_s` seconds while a reply is due.

    The server's own limits do not work if the server is frozen or the network drops packets.
    """

    silent_s: float | None = _SILENT_S
    on_silence: Callable[[], None] | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **options: Any) -> RV:
        """Run one exchange with the server. Every statement goes through this method. Raises NoAnswer."""
        if self.silent_s is None:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_limited(gen, self.silent_s), *args, **options)
        except NoAnswer:
            self.close()  # an exchange is in progress
            if self.on_silence is not None:
                self.on_silence()
            raise


def _limited(gen: Generator[Any, Any, RV], silent_s: float) -> Generator[Any, Any, RV]:
    """Yield the events that `gen` waits for. The driver sends the ready ones, several times a second; 0: none."""
    deadline = time.monotonic() + silent_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                deadline = time.monotonic() + silent_s
            elif time.monotonic() > deadline:
                raise NoAnswer(f"no answer of the server within {silent_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        value: RV = end.value
        return value


def postgres_engine(url: URL) -> Engine:
    """Return an engine whose transactions end within seconds, whatever the server does."""
    options = f"-c idle_in_transaction_session_timeout={_IDLE_MS} -c lock_timeout={_LOCK_MS}"
    arguments = {"connect_timeout": _CONNECT_S, "options": options}
    engine = create_engine(
        url, pool_pre_ping=True, pool_size=4, pool_timeout=_POOL_S, connect_args=arguments, hide_parameters=True
    )

    silent_at = -math.inf

    def on_silence() -> None:
        nonlocal silent_at
        silent_at = time.monotonic()

    @event.listens_for(engine, "do_connect")
    def _connect(_: Any, __: Any, args: Any, parameters: Any) -> Limited:
        if time.monotonic() < silent_at + _AGAIN_S:  # the pool replaces the connection that had no answer
            raise NoAnswer("the server did not answer a moment ago")
        try:
            connection = Limited.connect(*args, **parameters)
        except psycopg.errors.ConnectionTimeout as err:
            raise NoAnswer(f"no connection within {_CONNECT_S} s") from err
        connection.on_silence = on_silence
        return connection

    return engine
