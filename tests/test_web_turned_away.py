"""Requests that are refused by their heads alone, over sockets: the protocol around an application that says which."""

from collections.abc import Iterator

import pytest
from starlette.responses import Response

from service.web.exchange import Headers, Refusal
from tests.sockets import BODY, HEAD, LENGTH, Address, Connection, echoing

REFUSAL = Refusal(Response("too many", 429, {"Retry-After": "1"}), lambda: False)


class Door:
    """Refuses everything at /asked while it is shut."""

    shut = True
    asked = 0

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> Refusal | None:
        assert (b"host", b"localhost") in headers
        self.asked += 1
        return REFUSAL if self.shut and (method, target) == (b"POST", b"/asked") else None


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def where(door: Door) -> Iterator[Address]:
    """The address of a server on a free port."""
    with echoing(door.at_head) as (address, _):
        yield address


def test_the_refusal_comes_before_the_body_and_the_connection_stays_usable(where: Address, door: Door) -> None:
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
def test_connection_close_is_honoured_after_a_rejection(where: Address, door: Door, more: bytes) -> None:
    head = HEAD + more if more else HEAD.replace(b"1.1", b"1.0")
    with Connection(where) as caller:
        caller.send(head + LENGTH + BODY + HEAD.replace(b"/asked", b"/other") + LENGTH + BODY)
        assert caller.answer()[0] == 429
        assert caller.read.read() == b""
    assert door.asked == 1  # what follows is not looked at, and so not done


def test_a_refused_body_in_chunks_is_read_to_its_end(where: Address) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert caller.answer()[0] == 429
        caller.send(b"5\r\nGET /\r\n0\r\n\r\nGET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert caller.answer() == (200, b"got ")


def test_answers_keep_the_order_of_requests_that_were_sent_together(where: Address) -> None:
    other = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Connection(where) as caller:
        caller.send(HEAD + LENGTH + BODY + other)
        assert [caller.answer()[0] for _ in range(2)] == [429, 200]
        caller.send(other + HEAD + LENGTH + BODY + other)  # while one is being answered, the next is not refused early
        assert [caller.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_invalid_bytes_after_a_rejection_close_the_connection_without_a_response(where: Address) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert caller.answer()[0] == 429
        caller.send(b"no chunk\r\n")
        assert caller.read.read() == b""


def test_a_client_with_expect_100_continue_gets_the_rejection(where: Address) -> None:
    with Connection(where) as caller:
        caller.send(HEAD + b"Expect: 100-continue\r\n" + LENGTH)
        assert caller.answer()[0] == 429
        caller.send(BODY)  # or the next request in its place: so what follows is not looked at
        assert caller.read.read() == b""
