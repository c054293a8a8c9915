"""Open-loop load generator: a request every 1 / rate seconds, whether or not earlier ones were answered.

One thread with epoll and keep-alive connections: 15 µs per request, so that the client is not the bottleneck. Latency
is measured from the time a request was due, so that it includes waiting for a free connection.
"""

import gc
import math
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from benchmarks.loop import percentile

_CONNECTIONS = 2048  # most concurrent requests
_AT_ONCE, _ACCEPTED_S = 128, 0.05  # connections opened in a row, then a pause for the server to accept them
_LOOK_S = 0.1  # longest wait in epoll, so that the clock is checked
_GIVEN_UP_S = 15.0  # timeout for the last responses
LOST = 0  # status of a request without a response: the connection broke or timed out


class Answer(NamedTuple):
    """One request: when it was due, in s since the phase began; its latency in s; its status."""

    at: float
    took_s: float
    status: int


def p99s_ms(answers: Sequence[Answer], window_s: float = 0.5) -> list[float]:
    """Return the p99 latency of the requests due in each window, in ms.

    Their median is the p99 of a usual moment: a moment that other work on the machine has spoilt counts once, while the
    p99 of all requests may lie in such moments alone.
    """
    windows: dict[int, list[float]] = {}
    for answer in answers:
        windows.setdefault(int(answer.at / window_s), []).append(answer.took_s * 1e3)
    return [percentile(times, 0.99) for _, times in sorted(windows.items())]


def post(path: str, content: bytes, media_type: str, *more: str, version: str = "1.1") -> bytes:
    """Return the bytes of a request. `more`: header lines."""
    length = f"Content-Length: {len(content)}"
    lines = [f"POST {path} HTTP/{version}", "Host: 127.0.0.1", f"Content-Type: {media_type}", *more, length]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


class Client:
    """Client that POSTs the same body to one path repeatedly. A context manager: it closes the connections.

    `requests`: bytes that are sent in turn instead. `closes`: the server closes the connection after each response.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str = "",
        content: bytes = b"",
        media_type: str = "",
        *,
        requests: Sequence[bytes] = (),
        closes: bool = False,
    ) -> None:
        self._requests = deque(requests or [post(path, content, media_type)])
        self._closes = closes
        self._where = host, port
        self._poll = select.epoll()
        self._all: dict[int, socket.socket] = {}
        self._idle: deque[socket.socket] = deque()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * _CONNECTIONS), hard))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._all.values():
            connection.close()
        self._poll.close()

    def closed_loop(self, callers: int, seconds: float, at_most: float = math.inf) -> list[Answer]:
        """Run a closed loop: each of `callers` waits for its response before the next request."""
        return self._run(math.inf, callers, seconds, at_most)

    def open_loop(self, rate: float, seconds: float, connections: int = _CONNECTIONS) -> list[Answer]:
        """Run an open loop: `rate` requests per second."""
        return self._run(rate, connections, seconds, round(rate * seconds))

    def open_loop_until(self, stop: threading.Event, rate: float, connections: int = _CONNECTIONS) -> list[Answer]:
        """Run an open loop until `stop` is set."""
        return self._run(rate, connections, math.inf, math.inf, stop)

    def _run(
        self, rate: float, connections: int, seconds: float, at_most: float, stop: threading.Event | None = None
    ) -> list[Answer]:
        gc.collect()
        gc.disable()  # scanning all answers would delay the client
        try:
            return self._answers(rate, connections, seconds, at_most, stop)
        finally:
            gc.enable()

    def _answers(
        self, rate: float, connections: int, seconds: float, at_most: float, stop: threading.Event | None
    ) -> list[Answer]:
        self._connect(connections)
        answers: list[Answer] = []
        busy: dict[int, tuple[float, bytes]] = {}  # by file descriptor: due time, response so far
        start, sent, free = time.perf_counter(), 0, connections
        while True:
            now = time.perf_counter() - start
            # A request that was due in time is sent also if the client is late: else slow answers would be left out.
            while (is_left := sent < at_most and (due := _due(sent, rate, now)) < seconds) and free and due <= now:
                connection = self._idle.popleft()
                busy[connection.fileno()] = (due, b"")
                connection.send(self._requests[0])
                self._requests.rotate(-1)
                sent, free = sent + 1, free - 1
            if not (is_left or busy):
                return answers
            wait = min(sent / rate - now, _LOOK_S) if free and sent < at_most else _LOOK_S
            for number, _ in self._poll.poll(max(0.0, wait)):
                free += self._received(number, busy, answers, start)
            if stop is not None and stop.is_set():
                seconds = min(seconds, now)
            if now > seconds + _GIVEN_UP_S:
                answers += [Answer(due, now - due, LOST) for due, _ in busy.values()]
                for number in busy:
                    self._drop(number)
                return answers

    def _connect(self, connections: int) -> None:
        """Ensure that `connections` are open and idle: replace those that the server has closed."""
        for number, _ in self._poll.poll(0):
            self._drop(number)
        self._idle = deque(islice(self._all.values(), connections))  # the others stay open and unused
        while len(self._idle) < connections:
            self._open()
            if len(self._idle) % _AT_ONCE == 0:
                time.sleep(_ACCEPTED_S)

    def _open(self) -> None:
        """Open an idle connection."""
        connection = socket.create_connection(self._where)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(connection, select.EPOLLIN)
        self._all[connection.fileno()] = connection
        self._idle.append(connection)

    def _received(self, number: int, busy: dict[int, tuple[float, bytes]], answers: list[Answer], start: float) -> int:
        """Read from one connection, and replace it if it broke. Returns how many more are idle than before."""
        connection = self._all[number]
        try:
            piece = connection.recv(65_536)
        except OSError:
            piece = b""
        due, before = busy.get(number, (math.nan, b""))
        received = before + piece
        if piece and not _whole(received):
            busy[number] = (due, received)
            return 0
        if number in busy:
            del busy[number]
            took_s = time.perf_counter() - start - due
            answers.append(Answer(due, took_s, int(received[9:12]) if piece else LOST))
            change = 1
        else:
            change = 0  # the server has closed it
            if connection not in self._idle:
                self._drop(number)
                return change
            self._idle.remove(connection)
        if piece and not self._closes:
            self._idle.append(connection)
            return change
        self._drop(number)
        with suppress(OSError):
            self._open()
            return change
        return change - 1

    def _drop(self, number: int) -> None:
        self._poll.unregister(number)
        self._all.pop(number).close()


def _due(number: int, rate: float, now: float) -> float:
    """Return when a request is due; in a closed loop at once."""
    return number / rate if rate < math.inf else now


def _whole(received: bytes) -> bool:
    """Return whether a response with a Content-Length is complete."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    return len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
