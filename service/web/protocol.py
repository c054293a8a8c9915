"""HTTP/1.1 as uvicorn speaks it, with bounds: on the size of a head, on the time that a client takes, on how many wait.

An application may say in its lifespan state, under AT_HEAD, what becomes of a request whose head has come: that it is
refused by its head alone, which takes a third of what it would take to begin with it, or that it is answered from its
body alone, without a task. All others are asked of the application as ASGI has it.

An Upgrade header is ignored (RFC 9110, section 7.8), and CONNECT is refused: llhttp stops parsing at the end of such a
head, and httptools skips the body, which would then be parsed as the next request (request smuggling).
"""

import asyncio
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.web.problems import problem

MAX_HEAD_BYTES = 65_536  # request line and headers; of what comes between the pieces of a body, too
MAX_HEADERS = 128
PATIENCE_S = 10.0  # for a head, from its first byte or from the connection
LEAST_BYTES_PER_S = 16_384  # a body that comes in slower than this, over all, after PATIENCE_S is given up
STALL_S = 30.0  # how long a client may take nothing of an answer
AT_HEAD = "at_head"
_CLOSE = (b"connection", b"close")

Headers = Sequence[tuple[bytes, bytes]]
Reply = tuple[int, Headers, bytes]  # status, headers, body
Respond = Callable[[Reply], None]


def reply_of(response: Response) -> Reply:
    """What a whole response consists of."""
    return response.status_code, response.raw_headers, bytes(response.body)


class Exchange(typing.Protocol):
    """A request that is answered without a task."""

    def begin(self, body: bytes, respond: Respond) -> bool:
        """Its body is whole: call `respond` once, now or later. False: have the application answer."""
        ...

    def abandon(self) -> None:
        """The client has gone: `respond` need not be called."""
        ...


AtHead = Callable[[bytes, bytes, Headers], Response | Exchange | None]  # method, target and headers of a request


class _Direct:
    """Stands in the place of uvicorn's cycle while a request is answered without one: with what uvicorn asks of it."""

    __slots__ = ("disconnected", "exchange", "keep_alive", "pieces", "response_complete")
    response_started = False
    message_event = asyncio.Event()  # nobody waits for it

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.pieces: list[bytes] = []  # of the body
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False


class Protocol(HttpToolsProtocol):
    """One connection. `check` is to be called now and then: a timer for each request would cost more."""

    _began: float | None = None  # since when the client has been sending a request; None where it owes nothing
    _received = 0  # bytes of its body
    _unread = 0  # bytes that have become neither a whole head nor a piece of a body
    _idle_since = 0.0  # when the last answer was complete
    _unsent = 0  # bytes of answers that the client has not taken
    _unsent_since = 0.0
    _refusal = (400, "Malformed request", "this is no HTTP request that can be read")
    _turned_away = False  # the request that comes in is answered already, or never
    _hang_up = False  # after it
    _upgrade = False  # the head just parsed asks for an upgrade: it is parsed again without its Upgrade headers
    _last: ClassVar[tuple[Response, Headers, bytes] | None] = None  # see _as_sent
    _direct: _Direct | None = None  # the request that comes in is answered without a task

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; from now on the client owes a request."""
        super().connection_made(transport)
        self._began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse what came in. A head that does not end is refused when it is too large."""
        self._unread += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as stop:
                self._ignore_upgrade(memoryview(data)[stop.args[0] :])
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(*self._refusal)
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "Head too large", f"send at most {MAX_HEAD_BYTES} bytes of headers")

    def on_message_begin(self) -> None:
        """A request begins. What ASGI wants to be told of it is made for those that the application is asked."""
        self.url, self.expect_100_continue, self.headers = b"", False, []
        self._received = 0
        if self._began is None:
            self._began = self.loop.time()

    def on_headers_complete(self) -> None:
        """The head is whole. Raises ValueError if it is refused, which ends in HttpParserError."""
        if self._unread > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                limits = f"send at most {MAX_HEADERS} headers, {MAX_HEAD_BYTES} bytes in all"
                self._refusal = 431, "Head too large", limits
                raise ValueError(limits)
        self._unread = 0
        if self.transport.is_closing():  # sent after a request that was to be the last one: nobody would see an answer
            self._turned_away = self._hang_up = True
            return
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refusal = 501, "Not implemented", "this server is no proxy: it opens no tunnels"
                raise ValueError(self._refusal)
            self._upgrade = True
            return
        at_head: AtHead | None = self.app_state.get(AT_HEAD)
        if at_head is not None and self._is_answered():
            found = at_head(self.parser.get_method(), self.url, self.headers)
            if isinstance(found, Response):
                self._turn_away(found)
                return
            if found is not None and self._is_plain():
                self._direct = self.cycle = _Direct(found)  # type: ignore[assignment]
                return
        self._ask()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unread = 0
        self._received += len(body)
        if self._direct is not None:
            self._direct.pieces.append(body)
        elif not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: the client owes nothing."""
        if self._upgrade:
            return
        self._began = None
        self._unread = 0
        if self._direct is not None:
            self._begin(self._direct)
            return
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away = False
        if self._hang_up:
            self.transport.close()
        else:
            self.on_response_complete()

    def check(self, now: float) -> None:
        """Give up a client that takes too long to send its request, or to take its answer."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if unsent:
            if now - self._unsent_since > STALL_S:
                self.transport.abort()
        elif self.flow.read_paused:
            self._began = now  # it is not the client who is slow
        elif self._began is not None and now - self._began > self._patience_s():
            self._refuse(408, "Too slow", "the request did not come in time: send it again, faster")
        elif self._began is None and self._is_answered() and now - self._idle_since > self.timeout_keep_alive:
            self.transport.close()

    def _is_answered(self) -> bool:
        """Whether every request that came before this moment is."""
        return self.cycle is None or self.cycle.response_complete

    def _patience_s(self) -> float:
        """How long this request may take. After an early answer the rest is read for the answer not to be lost."""
        answered = self._turned_away or (self.cycle is not None and self.cycle.response_complete)
        return PATIENCE_S + (0 if answered else self._received / LEAST_BYTES_PER_S)

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of each request: `check` looks for connections that nobody uses."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        if isinstance(self.cycle, _Direct) and not self.cycle.response_complete:
            self.cycle.exchange.abandon()
        super().connection_lost(exc)

    def _is_plain(self) -> bool:
        """Whether the next answer is one piece on a connection that stays."""
        parser = self.parser
        stays = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        return stays and not (self.expect_100_continue or self.flow.write_paused)

    def _ignore_upgrade(self, rest: memoryview) -> None:
        """Parse the last head again without its Upgrade headers, and after it the `rest`: its body and what follows.

        The new parser carries over no state. The first time the head was parsed, nothing was done for the request.
        """
        while not self.transport.is_closing():
            head = self._head_without_upgrade()
            self._upgrade = False
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
            self.parser.feed_data(head)
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as stop:
                rest = rest[stop.args[0] :]
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        """Serialize the head from its parsed fields: no value holds a line break, so the framing stays the same."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"".join([b"%b %b HTTP/%b\r\n" % (method, self.url, version), *fields, b"\r\n"])

    def _begin(self, direct: _Direct) -> None:
        self._direct = None
        body, direct.pieces = b"".join(direct.pieces), []
        if not direct.exchange.begin(body, partial(self._respond, direct)):
            self.cycle = None  # type: ignore[assignment]
            self._ask()
            super().on_body(body)
            super().on_message_complete()

    def _ask(self) -> None:
        """Have the application answer, as uvicorn does."""
        url, expects, headers = self.url, self.expect_100_continue, self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _respond(self, direct: _Direct, reply: Reply) -> None:
        direct.response_complete = True
        if self.cycle is direct:  # type: ignore[comparison-overlap]
            self.cycle = None  # type: ignore[assignment]
        if self.transport.is_closing():
            return
        status, headers, body = reply
        stopping = _CLOSE in self.server_state.default_headers
        self._write(status, headers if direct.keep_alive or stopping else [*headers, _CLOSE], body)
        if stopping or not direct.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _turn_away(self, refusal: Response) -> None:
        """Answer. What is still to come of the request is read and forgotten, for the answer not to be lost.

        Then the connection ends where the client wishes so, or where it may leave out the body and send a request in
        its place (it expects to be told to go on): which of both it did cannot be told.
        """
        self._turned_away = True
        keeps = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        stopping = _CLOSE in self.server_state.default_headers
        self._hang_up = stopping or self.expect_100_continue or not keeps
        if self._hang_up and not stopping:
            status, headers, body = reply_of(refusal)
            self._write(status, [*headers, _CLOSE], body)
        else:
            self.transport.write(self._as_sent(refusal))

    def _as_sent(self, refusal: Response) -> bytes:
        """Made anew when another is asked for, or when the Date changes: refusals come in floods."""
        last, defaults = Protocol._last, self.server_state.default_headers
        if last is None or last[0] is not refusal or last[1] is not defaults:
            last = Protocol._last = refusal, defaults, self._content(*reply_of(refusal))
        return last[2]

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer, unless another answer is under way or nothing was asked, and hang up."""
        idle = self.headers is None and not self._unread
        begun = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        if not (idle or begun or self._turned_away):
            self._write(*reply_of(problem(status, title, detail, {"Connection": "close"})))
        self.transport.close()

    def _write(self, status: int, headers: Headers, body: bytes) -> None:
        self.transport.write(self._content(status, headers, body))

    def _content(self, status: int, headers: Headers, body: bytes) -> bytes:
        lines = [b"%b: %b\r\n" % line for line in (*self.server_state.default_headers, *headers)]
        return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
