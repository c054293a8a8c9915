"""HTTP/1.1 as uvicorn speaks it, with bounds: on the size of a head, on the time that a client takes, on how many wait.

An application may say in its lifespan state, under TURN_AWAY, which requests are refused by their heads alone: that
takes a third of what it would take to begin with them.
"""

import asyncio
from collections.abc import Callable, Sequence

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.problems import problem

MAX_HEAD_BYTES = 65_536  # request line and headers; of what comes between the pieces of a body, too
MAX_HEADERS = 128
PATIENCE_S = 10.0  # for a head, from its first byte or from the connection
LEAST_BYTES_PER_S = 16_384  # a body that comes in slower than this, over all, after PATIENCE_S is given up
STALL_S = 30.0  # how long a client may take nothing of an answer
TURN_AWAY = "turn_away"
_CLOSE = (b"connection", b"close")

# method, target and headers of a request -> its refusal
TurnAway = Callable[[bytes, bytes, Sequence[tuple[bytes, bytes]]], Response | None]


class Protocol(HttpToolsProtocol):
    """One connection. `check` is to be called now and then: a timer for each request would cost more."""

    _began: float | None = None  # since when the client has been sending a request; None where it owes nothing
    _received = 0  # bytes of its body
    _unread = 0  # bytes that have become neither a whole head nor a piece of a body
    _unsent = 0  # bytes of answers that the client has not taken
    _unsent_since = 0.0
    _refusal = (400, "Malformed request", "this is no HTTP request that can be read")
    _turned_away = False  # the request that comes in is answered already, or never
    _hang_up = False  # after it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's; from now on the client owes a request."""
        super().connection_made(transport)
        self._began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; a head that does not end is not gathered for ever."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "Head too large", f"send at most {MAX_HEAD_BYTES} bytes of headers")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._unset_keepalive_if_required()  # the request before may have come in the same piece, and been turned away
        self._received = 0
        if self._began is None:
            self._began = self.loop.time()

    def on_headers_complete(self) -> None:
        """The head is whole. One that is too large ends in send_400_response."""
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
        turn_away: TurnAway | None = self.app_state.get(TURN_AWAY)
        if turn_away is not None and (self.cycle is None or self.cycle.response_complete):
            refusal = turn_away(self.parser.get_method(), self.url, self.headers)
            if refusal is not None:
                self._turn_away(refusal)
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._unread = 0
        self._received += len(body)
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: the client owes nothing."""
        self._began = None
        self._unread = 0
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away = False
        if self._hang_up:
            self.transport.close()
        else:
            self.on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What uvicorn calls where the parser gives up."""
        self._refuse(*self._refusal)

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

    def _patience_s(self) -> float:
        """How long this request may take. After an early answer the rest is read for the answer not to be lost."""
        answered = self._turned_away or (self.cycle is not None and self.cycle.response_complete)
        return PATIENCE_S + (0 if answered else self._received / LEAST_BYTES_PER_S)

    def _turn_away(self, refusal: Response) -> None:
        """Answer. What is still to come of the request is read and forgotten, for the answer not to be lost.

        Then the connection ends where the client wishes so, or where it may leave out the body and send a request in
        its place (it expects to be told to go on): which of both it did cannot be told.
        """
        self._turned_away = True
        keeps = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        stopping = _CLOSE in self.server_state.default_headers
        self._hang_up = stopping or self.expect_100_continue or not keeps
        self._write(refusal, [_CLOSE] if self._hang_up and not stopping else [])

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer, unless another answer is under way or nothing was asked, and hang up."""
        idle = self.scope is None and not self._unread
        begun = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        if not (idle or begun or self._turned_away):
            self._write(problem(status, title, detail, {"Connection": "close"}))
        self.transport.close()

    def _write(self, response: Response, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        headers = [*self.server_state.default_headers, *response.raw_headers, *more]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)]))
