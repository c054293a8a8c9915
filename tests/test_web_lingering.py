"""Lingering close, and the order of answers when a connection ends: the protocol around small applications."""

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.web import lingering
from service.web.lingering import LINGER_S
from service.web.server import Server
from tests.sockets import BODY, Address, Connection, listening
from tests.waiting import until

PIECE = bytes(65_536)
LATER_S = 1000.0
GET_HELD = b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_EARLY = GET_HELD.replace(b"held", b"early")
POST = b"POST /early HTTP/1.1\r\nHost: localhost\r\n"
CLOSING = POST + b"Connection: close\r\nContent-Length: 50000000\r\n\r\n"


class Held:
    """An application that answers /early without reading, and /held when it is let."""

    def __init__(self) -> None:
        self.release: Callable[[], object]

    async def _early(self, _: Request) -> Response:
        return Response(b"early")

    async def _read(self, request: Request) -> Response:
        return Response(b"%d bytes" % len(await request.body()))

    async def _held(self, _: Request) -> Response:
        event = asyncio.Event()
        self.release = partial(asyncio.get_running_loop().call_soon_threadsafe, event.set)
        await event.wait()
        return Response(b"held")

    def app(self) -> Starlette:
        ways = {"/early": self._early, "/read": self._read, "/held": self._held}
        return Starlette(routes=[Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in ways.items()])


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def started(held: Held) -> Iterator[tuple[Address, Server]]:
    with listening(held.app()) as found:
        yield found


def check(server: Server, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Have the server look after its connections as if that much time had passed."""

    async def look() -> None:
        for connection in list[Any](server.server_state.connections):
            connection.check(loop.time() + seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(look(), loop).result(60)


def is_cut_off(caller: Connection) -> bool:
    """Send until the connection is reset, a hundred megabytes at most."""
    try:
        for _ in range(1600):
            caller.send(PIECE)
    except OSError:
        return True
    return False


def lingers(caller: Connection, begin: bytes = CLOSING) -> None:
    """Have the connection linger: the answer is there, and the end of what the server sends."""
    caller.send(begin)
    assert caller.answer() == (200, b"early")
    assert caller.read.read() == b""


def test_the_connection_is_gone_once_the_client_has_closed_it(started: tuple[Address, Server]) -> None:
    where, server = started
    with Connection(where) as caller:
        lingers(caller)
        caller.send(PIECE)
        assert len(server.server_state.connections) == 1
    until(lambda: not server.server_state.connections)


def test_no_more_than_the_limit_is_read_on(started: tuple[Address, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    where, server = started
    monkeypatch.setattr(lingering, "LINGER_BYTES", 1_000_000)
    with Connection(where) as caller:
        lingers(caller)
        assert is_cut_off(caller)
    until(lambda: not server.server_state.connections)


def test_it_does_not_last_longer_than_the_limit(started: tuple[Address, Server]) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(GET_EARLY)
        caller.answer()
        (connection,) = server.server_state.connections
        loop = connection.loop
        lingers(caller)
        check(server, loop, LINGER_S - 1)
        assert server.server_state.connections
        check(server, loop, LINGER_S + 1)
        assert not server.server_state.connections


@pytest.mark.parametrize("limit", ["seconds", "bytes"])
def test_a_connection_that_stays_open_is_not_read_from_without_end(
    started: tuple[Address, Server], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(CLOSING.replace(b"Connection: close\r\n", b"") + PIECE)
        assert caller.answer() == (200, b"early")
        (connection,) = server.server_state.connections
        check(server, connection.loop, LINGER_S - 1)
        assert server.server_state.connections
        if limit == "bytes":
            monkeypatch.setattr("service.web.protocol.LINGER_BYTES", -1)
        check(server, connection.loop, 0 if limit == "bytes" else LINGER_S + 1)
        assert caller.read.read() == b"", "nothing follows the one answer"
    until(lambda: not server.server_state.connections)


def test_lingering_connections_are_bounded_and_the_oldest_is_closed_first(
    started: tuple[Address, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, server = started
    monkeypatch.setattr(lingering, "MAX_LINGERING", 3)
    callers = []
    for _ in range(10):
        callers.append(Connection(where))
        lingers(callers[-1])
        until(lambda: len(server.server_state.connections) <= 3)
    assert all(is_cut_off(caller) for caller in callers[:7])
    for caller in callers[7:]:
        caller.send(PIECE)
    assert len(server.server_state.connections) == 3
    for caller in callers:
        caller.__exit__()
    until(lambda: not server.server_state.connections)


def test_discarded_bytes_take_no_memory(started: tuple[Address, Server]) -> None:
    callers = [Connection(started[0]) for _ in range(10)]
    for caller in callers:
        lingers(caller)
    tracemalloc.start()
    try:
        for _ in range(100):
            for caller in callers:
                caller.send(PIECE)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # of 65 million that were sent
    finally:
        tracemalloc.stop()
    for caller in callers:
        caller.__exit__()


@pytest.mark.slow
def test_a_stopping_server_does_not_wait_for_the_rest(started: tuple[Address, Server]) -> None:
    where, server = started
    with Connection(where) as caller:
        lingers(caller)
        server.should_exit = True
        until(lambda: not server.server_state.connections)


def test_nothing_behind_the_last_request_is_answered(started: tuple[Address, Server]) -> None:
    other = b"GET /early HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Connection(started[0]) as caller:
        lingers(caller, POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY + other)
    with Connection(started[0]) as caller:
        lingers(caller, CLOSING)
        caller.send(bytes(50_000_000) + other)
        assert caller.read.read() == b""


def test_a_body_that_is_asked_for_leaves_the_connection_open(started: tuple[Address, Server]) -> None:
    head = b"POST /read HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with Connection(started[0]) as caller:
        for _ in range(2):
            caller.send(head)
            assert caller.answer() == (100, b"")
            caller.send(BODY)
            assert caller.answer() == (200, b"%d bytes" % len(BODY))
            assert "connection" not in caller.headers


CHUNKED = b"POST /read HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "no method": (400, b"\x00\x01\x02\r\n\r\n"),
    "a version that is none": (400, b"GET /early HTTP/x.y\r\n\r\n"),
    "a header without a colon": (400, b"GET /early HTTP/1.1\r\nHost localhost\r\n\r\n"),
    "two lengths": (400, b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    "a bad chunk": (400, CHUNKED + b"no chunk\r\n"),
    "a bad chunk behind a good one": (400, CHUNKED + b"1\r\nx\r\nno chunk\r\n"),
    "too many trailers": (431, CHUNKED + b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
    "too many headers": (431, b"GET /early HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
    "a head without end": (431, b"GET /early HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 200_000),
    "CONNECT": (501, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("before", [1, 3])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_request_is_answered_after_those_before_it(
    started: tuple[Address, Server], held: Held, kind: str, before: int
) -> None:
    status, refused = REFUSED[kind]
    with Connection(started[0]) as caller:
        caller.send(GET_HELD + GET_EARLY * (before - 1) + refused)
        until(lambda: hasattr(held, "release"))
        caller.send(GET_EARLY * 2)  # not parsed any more
        held.release()
        assert caller.answer() == (200, b"held")
        assert [caller.answer() for _ in range(before - 1)] == [(200, b"early")] * (before - 1)
        assert caller.answer()[0] == status
        assert caller.headers["connection"] == "close"
        assert caller.read.read() == b""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_seen_by_a_client_that_goes_on_sending(started: tuple[Address, Server], kind: str) -> None:
    status, refused = REFUSED[kind]
    with Connection(started[0]) as caller:
        caller.send(refused)
        assert caller.answer()[0] == status
        assert caller.read.read() == b""
        for _ in range(100):
            caller.send(PIECE)


def test_a_request_that_is_too_slow_is_refused_after_the_one_before_it(
    started: tuple[Address, Server], held: Held
) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(GET_HELD + b"GET /ear")
        until(lambda: hasattr(held, "release"))
        (connection,) = server.server_state.connections
        check(server, connection.loop, 60)
        caller.send(b"ly HTTP/1.1\r\nHost: localhost\r\n\r\n")
        held.release()
        assert caller.answer() == (200, b"held")
        assert caller.answer()[0] == 408
        assert caller.read.read() == b""


def test_a_connection_whose_requests_waited_for_each_other_is_not_too_slow(
    started: tuple[Address, Server], held: Held
) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(GET_HELD + GET_EARLY * 2)
        until(lambda: hasattr(held, "release"))
        (connection,) = list[Any](server.server_state.connections)
        check(server, connection.loop, 0)
        held.release()
        assert [caller.answer()[1] for _ in range(3)] == [b"held", b"early", b"early"]
        connection.timeout_keep_alive = LATER_S
        check(server, connection.loop, 60)
        caller.send(GET_EARLY)
        assert caller.answer() == (200, b"early")
