"""Requests that are answered without a task, over sockets: the protocol around an application that takes some so."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import service.web.protocol
from service.web.exchange import Headers, Respond
from service.web.server import Server
from tests.sockets import BODY, HEAD, LENGTH, Address, Connection, echoing
from tests.waiting import until

OTHER = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Counter:
    """Fake handler: answers at once or on request, or lets the application answer."""

    def __init__(self) -> None:
        self.takes = True
        self.waits = False
        self.begun = threading.Semaphore(0)
        self.abandoned = threading.Event()
        self.answer: Callable[[], None]

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> "Counter | None":
        assert (b"host", b"localhost") in headers
        return self if (method, target) == (b"POST", b"/asked") else None

    def begin(self, body: bytes, respond: Respond) -> bool:
        if not self.takes:
            return False
        content = b"directly " + body
        reply = (200, [(b"content-length", b"%d" % len(content)), (b"x-way", b"direct")], content)
        self.answer = lambda: respond(reply)
        if not self.waits:
            self.answer()
        self.begun.release()
        return True

    def abandon(self) -> None:
        self.abandoned.set()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def started(counter: Counter) -> Iterator[tuple[Address, Server]]:
    with echoing(counter.at_head) as found:
        yield found


@pytest.fixture
def where(started: tuple[Address, Server]) -> Address:
    return started[0]


def the_connection(server: Server) -> Any:
    """Its protocol."""
    (connection,) = server.server_state.connections
    return connection


def waiting(caller: Connection, server: Server, counter: Counter) -> Any:
    """The protocol of a connection on which a request has begun, whose answer is to be given."""
    counter.waits = True
    caller.send(HEAD + LENGTH + BODY)
    assert counter.begun.acquire(timeout=60)
    return the_connection(server)


def stop(server: Server) -> None:
    """Have it stop, and wait until the one connection knows."""
    connection = the_connection(server)
    server.should_exit = True
    until(lambda: not connection.cycle.keep_alive)


def test_an_answer_is_whole_and_the_connection_stays(where: Address) -> None:
    with Connection(where) as caller:
        for _ in range(2):
            caller.send(HEAD + LENGTH + BODY)
            assert caller.answer() == (200, b"directly " + BODY)
            assert caller.headers["x-way"] == "direct"
            assert "date" in caller.headers
        caller.send(OTHER)
        assert caller.answer() == (200, b"got ")


def test_a_body_in_pieces_is_put_together(where: Address) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH)
        for byte in BODY:
            caller.send(bytes([byte]))
        assert caller.answer() == (200, b"directly " + BODY)


def test_a_request_declined_by_the_fast_path_reaches_the_application_whole(
    where: Address,
    counter: Counter,
) -> None:
    counter.takes = False
    with Connection(where) as caller:
        for content in (BODY, b""):
            caller.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            assert caller.answer() == (200, b"got " + content)
        counter.takes = True
        caller.send(HEAD + LENGTH + BODY)
        assert caller.answer() == (200, b"directly " + BODY)


def test_a_request_that_expects_100_continue_goes_the_way_of_all_others(where: Address) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Expect: 100-continue\r\n" + LENGTH)
        assert caller.read.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert caller.read.readline() == b"\r\n"
        caller.send(BODY)
        assert caller.answer() == (200, b"got " + BODY)


@pytest.mark.parametrize(
    ("version", "more"),
    [
        (b"1.1", b"Connection: close\r\n"),
        (b"1.1", b"Connection: Close, x\r\n"),
        (b"1.0", b""),
        (b"1.0", b"Connection: keep-alive\r\n"),
    ],
)
def test_the_last_answer_of_a_connection_says_so_and_closes_it(
    where: Address, counter: Counter, version: bytes, more: bytes
) -> None:
    head = HEAD.replace(b"1.1", version)
    seen = []
    for counter.takes in (True, False):
        with Connection(where) as caller:
            caller.send(head + more + LENGTH + BODY)
            status, _ = caller.answer()
            seen.append((status, caller.headers["connection"]))
            assert caller.read.read() == b""
    assert seen == [(200, "close")] * 2


def test_nothing_is_read_after_the_last_request_of_a_connection(
    started: tuple[Address, Server], counter: Counter
) -> None:
    where, server = started
    counter.waits = True
    with Connection(where) as caller:
        caller.send(HEAD + b"Connection: close\r\n" + LENGTH + BODY + HEAD + LENGTH + BODY)
        assert counter.begun.acquire(timeout=60)
        the_connection(server).loop.call_soon_threadsafe(counter.answer)
        assert caller.answer() == (200, b"directly " + BODY)
        assert caller.read.read() == b""
    assert not counter.begun.acquire(blocking=False)


def test_answers_keep_the_order_of_requests_that_were_sent_together(
    started: tuple[Address, Server],
    counter: Counter,
) -> None:
    where, server = started
    counter.waits = True
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY + OTHER + HEAD + LENGTH + BODY)
        assert counter.begun.acquire(timeout=60)
        the_connection(server).loop.call_soon_threadsafe(counter.answer)  # as a batch would
        assert caller.answer() == (200, b"directly " + BODY)
        assert [caller.answer() for _ in range(2)] == [(200, b"got "), (200, b"got " + BODY)]


def test_a_disconnected_client_is_reported_and_gets_no_response(
    started: tuple[Address, Server],
    counter: Counter,
) -> None:
    where, server = started
    with Connection(where) as caller:
        connection = waiting(caller, server, counter)
    assert counter.abandoned.wait(60)
    connection.loop.call_soon_threadsafe(counter.answer)
    with Connection(where) as caller:
        caller.send(OTHER)
        assert caller.answer() == (200, b"got ")


def test_a_disconnect_within_the_body_is_reported(where: Address, counter: Counter) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY[:3])
    assert counter.abandoned.wait(60)
    assert not counter.begun.acquire(blocking=False)


def test_shutdown_answers_the_current_request_and_closes_the_connection(
    started: tuple[Address, Server],
    counter: Counter,
) -> None:
    where, server = started
    with Connection(where) as caller:
        connection = waiting(caller, server, counter)
        stop(server)
        connection.loop.call_soon_threadsafe(counter.answer)
        assert caller.answer() == (200, b"directly " + BODY)
        assert caller.headers["connection"] == "close"
        assert caller.read.read() == b""


def test_a_stopping_server_waits_for_the_rest_of_a_body(started: tuple[Address, Server]) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY[:3])
        until(lambda: server.server_state.connections and the_connection(server).cycle)
        stop(server)
        caller.send(BODY[3:])
        assert caller.answer() == (200, b"directly " + BODY)
        assert caller.read.read() == b""


def test_half_a_body_is_not_waited_for_for_ever(
    started: tuple[Address, Server],
    monkeypatch: pytest.MonkeyPatch,
    counter: Counter,
) -> None:
    where, server = started
    monkeypatch.setattr(service.web.protocol, "PATIENCE_S", 0.0)
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY[:3])
        assert caller.answer()[0] == 408
        assert caller.read.read() == b""
    assert counter.abandoned.wait(60)
    until(lambda: not server.server_state.connections)


def test_an_idle_connection_is_closed(started: tuple[Address, Server]) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY)
        assert caller.answer()[0] == 200
        connection = the_connection(server)
        connection.timeout_keep_alive = 0
        assert caller.read.read() == b""
