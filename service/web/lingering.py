"""Lingering close (RFC 9112, section 9.6): a client that still sends sees the last answer before its connection closes.

If a server closes a connection with unread bytes, its TCP stack resets the connection, and the client loses the answer:
it reports a reset or a broken pipe. So the server closes its sending side only, then reads and discards data,
within limits, and closes when the client does.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LINGER_S = 30.0  # how long to read on after an early answer
LINGER_BYTES = 268_435_456  # how much to read on
MAX_LINGERING = 256  # connections in lingering close in this process; one more closes the oldest
_CONTINUE = b"HTTP/1.1 100"


class Deaf:
    """Replaces the parser once the rest of a connection is not parsed."""

    def feed_data(self, _: bytes) -> None:
        """Discard the data."""


class Lingering(asyncio.Protocol):
    """Protocol of a connection in lingering close. It discards its input, so it needs no memory for it."""

    cycle = None  # read by the server's shutdown: there is no request in progress
    _all: ClassVar[dict["Lingering", None]] = {}  # of this process, the oldest first

    def __init__(self, transport: asyncio.Transport, connections: set[Any], now: float) -> None:
        """Take over the transport. `connections` are those that the server checks and shuts down."""
        self._transport = transport
        self._connections = connections
        self._left = LINGER_BYTES
        self._since = now
        self._unsent = transport.get_write_buffer_size()
        if len(self._all) >= MAX_LINGERING:
            next(iter(self._all)).shutdown()
        self._all[self] = None
        connections.add(self)
        transport.set_protocol(self)
        transport.write_eof()  # after the answer

    def data_received(self, data: bytes) -> None:
        """Discard data, up to the limit."""
        self._left -= len(data)
        if self._left < 0:
            self.shutdown()

    def check(self, now: float) -> None:
        """Close the connection if the time is up. It begins when the client has taken the answer."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._since = unsent, now
        if now - self._since > LINGER_S:
            self._transport.abort()

    def shutdown(self) -> None:
        """Close the connection."""
        self._all.pop(self, None)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Release the connection."""
        self._all.pop(self, None)
        self._connections.discard(self)


class Outlet:
    """The transport as the application's requests see it: `close` calls `end` instead."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = end

    def detach(self) -> None:
        """Let `close` do nothing from now on, and release the connection."""
        self.close = _nothing


class ExpectOutlet:
    """Outlet of a request with `Expect: 100-continue`.

    Until 100 Continue is sent, such a client may send the body or its next request, and the server cannot tell which.
    So an answer without 100 Continue is the last one of its connection.
    """

    __slots__ = ("_cycle", "_outlet", "is_closing")

    def __init__(self, outlet: Outlet, cycle: RequestResponseCycle) -> None:
        self._outlet = outlet
        self._cycle = cycle
        self.is_closing = outlet.is_closing
        cycle.keep_alive = False

    def write(self, data: bytes) -> None:
        """Send; from 100 Continue on, the connection may stay open."""
        if data.startswith(_CONTINUE):
            self._cycle.keep_alive = True
        self._restore()
        self._outlet.write(data)

    def close(self) -> None:
        """See Outlet."""
        self._restore()
        self._outlet.close()

    def _restore(self) -> None:
        """Leave the request to the plain outlet: the first write decides, and no reference cycle remains."""
        self._cycle.transport = self._outlet  # type: ignore[assignment]


def _nothing() -> None:
    pass
