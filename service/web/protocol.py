"""HTTP/1.1 connection handling on top of uvicorn's httptools protocol, with limits on header size, slow clients and
load.

The application may put an AT_HEAD function into its lifespan state. It is called when the headers of a request are
complete, and decides between three ways: refuse the request from its headers alone, at a third of the cost of starting
it; answer it from its body without a task (fast path); or run the ASGI application. An AT_REFUSAL function there
returns the headers to add to a refusal that does not pass through the application.

An Upgrade header is ignored (RFC 9110, section 7.8), and CONNECT is refused: llhttp stops parsing at the end of such a
head, and httptools skips the body, which would then be parsed as the next request (request smuggling).

A client that is answered before its body was read must see the answer: the rest is read and discarded, on a connection
that stays open by the parser, else in a lingering close (`service.web.lingering`).

Trailer fields of a chunked body are discarded (RFC 9110, section 6.5.1): uvicorn appends them to the headers, so that
an Authorization, Host or Origin after the body would count in the access checks.
"""

import asyncio
from functools import partial
from itertools import count
from typing import NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.web.exchange import (
    AT_HEAD,
    AT_REFUSAL,
    REFUSED,
    AtHead,
    AtRefusal,
    Direct,
    Refusal,
    Refused,
    Reply,
    reply_of,
)
from service.web.framing import fault_in_head, head_without_upgrade
from service.web.lingering import LINGER_BYTES, LINGER_S, Deaf, ExpectOutlet, Lingering, Outlet
from service.web.problems import problem
from service.web.refusals import Refusals

MAX_HEAD_BYTES = 65_536  # request line and headers; also the framing between pieces of a body
MAX_HEADERS = 128
PATIENCE_S = 10.0  # for the headers, from their first byte or from the connection
LEAST_BYTES_PER_S = 16_384  # minimum average rate of a body, after PATIENCE_S
STALL_S = 30.0  # how long a client may read nothing of an answer
_CLOSE = (b"connection", b"close")
_VERSIONS = {"1.0", "1.1"}
_NUMBERS = count()


class Protocol(HttpToolsProtocol):
    """One connection. The server calls `check` periodically, since a timer per request would cost more."""

    _began: float | None = None  # when the current request began; None between requests
    _received = 0  # bytes of its body so far
    _received_before = 0  # those that came before the last answer was completed
    _in_head = True  # fields are headers; after the head they are trailer fields
    _trailers = 0  # trailer fields of the current request
    _trailer_bytes = 0
    _unread = 0  # bytes received that are not yet complete headers or a piece of a body
    _idle_since = 0.0  # when the last answer was completed
    _unsent = 0  # bytes of answers in the write buffer
    _unsent_since = 0.0
    _refusal = (400, "Malformed request", "the bytes are not a valid HTTP request")
    _turned_away = False  # the current request is answered already, or will not be
    _hang_up = False  # close after it
    _upgrade = False  # the head just parsed asks for an upgrade: it is parsed again without its Upgrade headers
    _repeats: Refusal | None = None  # how the current request was refused, if the next one with its head may be, too
    _direct: Direct | None = None  # the current request, if it takes the fast path
    _parting: bytes | None = None  # a refusal that waits until the requests before it are answered
    _outlet: Outlet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        self._outlet = Outlet(transport, self._end)
        self._refusals = Refusals.of(self.server_state)
        self._refused: Refused | None = self.app_state.get(REFUSED)
        self._number = next(_NUMBERS)  # among all connections of the process
        self._began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. Headers without an end are refused when they are too large."""
        is_between = self._began is None
        if is_between and self._refusals.heads and self._is_refused_again(data):
            return
        self._unread += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as stop:
                self._ignore_upgrade(memoryview(data)[stop.args[0] :])
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(*self._refusal)
        if self._repeats is not None:
            if is_between and self._began is None:
                self._refusals.keep(data, self._received, self._repeats)
            self._repeats = None
        if self._turned_away and self._hang_up:
            self._end()
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "Head too large", f"send at most {MAX_HEAD_BYTES} bytes of headers")

    def on_message_begin(self) -> None:
        """Start a request. The ASGI scope is made later, only for requests that reach the application."""
        self.url, self.expect_100_continue, self.headers = b"", False, []
        self._received = 0
        self._in_head, self._trailers, self._trailer_bytes = True, 0, 0
        if self._began is None:
            self._began = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or discard a trailer field. Raises ValueError if there are too many trailer fields."""
        if self._in_head:  # as uvicorn does; calling it would cost as much again, for each header
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            return
        self._trailers += 1
        self._trailer_bytes += len(name) + len(value)
        if self._trailers > MAX_HEADERS or self._trailer_bytes > MAX_HEAD_BYTES:
            limits = f"send at most {MAX_HEADERS} trailer fields, {MAX_HEAD_BYTES} bytes in all"
            self._refusal = 431, "Trailers too large", limits
            raise ValueError(limits)

    def on_headers_complete(self) -> None:
        """The head is whole. Raises ValueError if it is refused, which ends in HttpParserError."""
        if self._unread > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                limits = f"send at most {MAX_HEADERS} headers, {MAX_HEAD_BYTES} bytes in all"
                self._reject(431, "Head too large", limits)
        self._unread = 0
        if self.transport.is_closing():  # a request after the last one: its answer would not be read
            self._in_head, self._turned_away, self._hang_up = False, True, True
            return
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._reject(501, "Not implemented", "this server is not a proxy and does not support CONNECT")
            self._upgrade = True
            return
        self._in_head = False
        if self._is_answered() and self._is_taken():
            return
        if (refusal := fault_in_head(self.headers, self.parser.get_http_version())) is not None:
            self._reject(*refusal)
        self._ask()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread = 0
        self._received += len(body)
        if self._direct is not None:
            self._direct.pieces.append(body)
        elif not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Finish reading the request."""
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
        """Close the connection if the client is too slow to send its request, too slow to read its answer, or idle for
        too long.
        """
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if unsent:
            if now - self._unsent_since > STALL_S:
                self.transport.abort()
        elif self._began is None:
            if self._is_answered() and now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
        elif self.flow.read_paused:
            self._began = now  # the service paused reading: the client is not slow
        elif self._is_answered_early():
            since, before = (self._began, 0) if self._turned_away else (self._idle_since, self._received_before)
            if now - since > LINGER_S or self._received - before > LINGER_BYTES:
                self.transport.close()
        elif now - self._began > PATIENCE_S + self._received / LEAST_BYTES_PER_S:
            self._refuse(408, "Too slow", "the request did not come in time: send it again, faster")

    def _reject(self, status: int, title: str, detail: str) -> NoReturn:
        """Refuse the head: the parser stops, and data_received ends the connection."""
        self._in_head = True
        self._refusal = status, title, detail
        raise ValueError(detail)

    def _is_answered(self) -> bool:
        """Return whether every earlier request on this connection is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _is_answered_early(self) -> bool:
        """Return whether the request that is being read is answered, so that its rest is only discarded."""
        return not self._in_head and (self._turned_away or (self.cycle is not None and self.cycle.response_complete))

    def on_response_complete(self) -> None:
        """Continue with the next request, as uvicorn does, but without a keep-alive timer: `check` replaces it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since, self._received_before = self.loop.time(), self._received
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._parting is not None:
            self.transport.write(self._parting)
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel a fast-path request that is not answered yet."""
        if isinstance(self.cycle, Direct) and not self.cycle.response_complete:
            self.cycle.exchange.abandon()
        self._outlet.detach()
        super().connection_lost(exc)

    def _is_taken(self) -> bool:
        """Refuse the request from its head, or let it take the fast path; return whether the application is left out.

        The fast path needs an answer in one piece, with nothing before it.
        """
        at_head: AtHead | None = self.app_state.get(AT_HEAD)
        found = None if at_head is None else at_head(self.parser.get_method(), self.url, self.headers)
        if isinstance(found, Refusal):
            self._turn_away(found)
            return True
        is_known = self.parser.get_http_version() in _VERSIONS
        if found is None or not is_known or self.expect_100_continue or self.flow.write_paused:
            return False
        self._direct = self.cycle = Direct(found, keep_alive=self._stays_open())  # type: ignore[assignment]
        return True

    def _stays_open(self) -> bool:
        """Return whether the client lets the connection stay open after this request. HTTP/1.0 never does."""
        keeps: bool = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        return keeps

    def _ignore_upgrade(self, rest: memoryview) -> None:
        """Parse the last head again without its Upgrade headers, and after it the `rest`: its body and later requests.

        The new parser carries over no state. The first time the head was parsed, nothing was done for the request.
        """
        while not self.transport.is_closing():
            head = head_without_upgrade(self.parser, self.url, self.headers)
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

    def _begin(self, direct: Direct) -> None:
        self._direct = None
        body, direct.pieces = b"".join(direct.pieces), []
        if not direct.exchange.begin(body, partial(self._respond, direct)):
            self.cycle = None  # type: ignore[assignment]
            self._ask()
            super().on_body(body)
            super().on_message_complete()

    def _ask(self) -> None:
        """Run the ASGI application, as uvicorn does."""
        expects = self.expect_100_continue and self.parser.get_http_version() != "1.0"  # RFC 9110, section 10.1.1
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        self.cycle.transport = self._outlet  # type: ignore[assignment]
        if expects and self.cycle.keep_alive:
            self.cycle.transport = ExpectOutlet(self._outlet, self.cycle)  # type: ignore[assignment]

    def _respond(self, direct: Direct, reply: Reply) -> None:
        direct.response_complete = True
        if self.cycle is direct:  # type: ignore[comparison-overlap]
            self.cycle = None  # type: ignore[assignment]
        if self.transport.is_closing():
            return
        stopping = _CLOSE in self.server_state.default_headers
        self._write(reply, closes=not (direct.keep_alive or stopping))
        if stopping or not direct.keep_alive:
            self._end()
        self.on_response_complete()

    def _turn_away(self, refusal: Refusal) -> None:
        """Write a refusal. The rest of the request is read and discarded, so that the client sees the answer.

        Close the connection afterwards if the client asked for it, or sent `Expect: 100-continue`: then the next bytes
        may be the body or a new request.
        """
        self._turned_away = True
        defaults = self.server_state.default_headers
        stopping = _CLOSE in defaults
        self._hang_up = stopping or self.expect_100_continue or not self._stays_open()
        if self._hang_up:
            self._write(reply_of(refusal.response), closes=not stopping)
        else:
            self._repeats = refusal
            self.transport.write(self._refusals.answer(refusal.response, defaults, self._content))
        self._count_refusal()

    def _is_refused_again(self, data: bytes) -> bool:
        """Refuse a whole request with the head of an earlier one that was refused, without parsing it."""
        known = self._refusals.find(data, self.server_state.default_headers)
        if known is None or not self._is_answered() or not known.refusal.again():
            return False
        self.transport.write(known.content)
        self._count_refusal()
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        return True

    def _count_refusal(self) -> None:
        if self._refused is not None:
            self._refused.add(self._number)

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Write an error after the answers to the requests before it, and end the connection.

        Write nothing if an answer to this request has started or no request has begun.
        """
        if self._parting is not None or self.parser is None or self.transport.is_closing():
            return
        if self.headers is None and not self._unread:
            self.transport.close()
            return
        has_cycle = self._began is not None and not self._in_head  # self.cycle is the refused request's, or its refusal
        waits = not (has_cycle or self._is_answered())
        if has_cycle and self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # it has not started
            waits = True
        silent = has_cycle and (self._turned_away or self.cycle.response_started)
        reply = b"" if silent else self._refusal_of(problem(status, title, detail, {"Connection": "close"}))
        if waits:
            self._parting = reply
            self.parser = Deaf()  # type: ignore[assignment]
            return
        self.transport.write(reply)
        self._linger()

    def _refusal_of(self, refusal: Response) -> bytes:
        """Return the bytes of a refusal, with the headers that the application adds for this request."""
        at_refusal: AtRefusal | None = self.app_state.get(AT_REFUSAL)
        if at_refusal is not None:
            refusal.headers.update(at_refusal(self.headers or ()))
        return self._content(reply_of(refusal))

    def _end(self) -> None:
        """Close the connection after its last answer; linger if the client may still be sending."""
        if self._began is None and not self.flow.read_paused:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Leave the connection to the lingering close. To this protocol it is lost."""
        if self.parser is None or self.transport.is_closing():
            return
        self.pipeline.clear()
        self._parting = None
        self.flow.resume_reading()
        self.connection_lost(ConnectionAbortedError())
        Lingering(self.transport, self.connections, self.loop.time())

    def _write(self, reply: Reply, *, closes: bool) -> None:
        status, headers, body = reply
        self.transport.write(self._content((status, [*headers, _CLOSE] if closes else headers, body)))

    def _content(self, reply: Reply) -> bytes:
        status, headers, body = reply
        lines = [b"%b: %b\r\n" % line for line in (*self.server_state.default_headers, *headers)]
        return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
