"""Requests that are refused by their heads alone, over sockets: the protocol around an application that says which."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.protocol import TURN_AWAY, Protocol, TurnAway
from service.web import Server, listen

BODY = b"some bytes"
HEAD = b"POST /asked HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
REFUSAL = Response("too many", 429, {"Retry-After": "1"})


class Door:
    """Refuses everything at /asked while it is shut."""

    shut = True
    asked = 0

    def turn_away(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Response | None:
        assert (b"host", b"localhost") in headers
        self.asked += 1
        return REFUSAL if self.shut and (method, target) == (b"POST", b"/asked") else None


async def echo(request: Request) -> Response:
    return Response(b"got " + await request.body())


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def where(door: Door) -> Iterator[tuple[str, int]]:
    """The address of a server on a free port."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, TurnAway]]:
        yield {TURN_AWAY: door.turn_away}

    app = Starlette(routes=[Route("/asked", echo, methods=["POST"]), Route("/other", echo)], lifespan=lifespan)
    server = Server(uvicorn.Config(app, http=Protocol, ws="none", log_config=None, timeout_graceful_shutdown=5))
    bound = listen("127.0.0.1", 0, shared=False)
    bound.listen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    yield bound.getsockname()
    server.should_exit = True
    thread.join()


class Connection:
    """A socket and what is read from it."""

    def __init__(self, where: tuple[str, int]) -> None:
        self._socket = socket.create_connection(where, timeout=60)
        self.send = self._socket.sendall
        self.read = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.read.close()
        self._socket.close()

    def answer(self) -> tuple[int, bytes]:
        """Status and content of the next answer."""
        status, length = int(self.read.readline().split()[1]), 0
        while line := self.read.readline().strip().lower():
            if line.startswith(b"content-length: "):
                length = int(line.split()[1])
        return status, self.read.read(length)


def test_the_refusal_comes_before_the_body_and_the_connection_stays_usable(where: tuple[str, int], door: Door) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH)
        assert caller.answer() == (429, b"too many")
        caller.send(BODY)  # the rest of what was refused is no request of its own
        caller.send(HEAD + LENGTH + BODY)
        assert caller.answer() == (429, b"too many")
        door.shut = False
        caller.send(HEAD + LENGTH + BODY)
        assert caller.answer() == (200, b"got " + BODY)
        assert door.asked == 3


@pytest.mark.parametrize("more", [b"Connection: close\r\n", b"Expect: 100-continue\r\n", b""])
def test_a_refused_caller_that_wants_to_be_hung_up_on_is(where: tuple[str, int], door: Door, more: bytes) -> None:
    head = HEAD + more if more else HEAD.replace(b"1.1", b"1.0")
    with Connection(where) as caller:
        caller.send(head + LENGTH + BODY + HEAD.replace(b"/asked", b"/other") + LENGTH + BODY)
        assert caller.answer()[0] == 429
        assert caller.read.read() == b""
    assert door.asked == 1  # what follows is not looked at, and so not done


def test_a_refused_body_in_chunks_is_read_to_its_end(where: tuple[str, int]) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert caller.answer()[0] == 429
        caller.send(b"5\r\nGET /\r\n0\r\n\r\nGET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert caller.answer() == (200, b"got ")


def test_answers_keep_the_order_of_requests_that_were_sent_together(where: tuple[str, int]) -> None:
    other = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY + other)
        assert [caller.answer()[0] for _ in range(2)] == [429, 200]
        caller.send(other + HEAD + LENGTH + BODY + other)  # while one is being answered, the next is not refused early
        assert [caller.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_what_is_no_request_after_a_refusal_is_hung_up_on_without_a_second_answer(where: tuple[str, int]) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert caller.answer()[0] == 429
        caller.send(b"no chunk\r\n")
        assert caller.read.read() == b""


def test_a_caller_that_waits_to_be_told_to_go_on_is_told_the_refusal(where: tuple[str, int]) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Expect: 100-continue\r\n" + LENGTH)
        assert caller.answer()[0] == 429
        caller.send(BODY)  # or the next request in its place: so what follows is not looked at
        assert caller.read.read() == b""
