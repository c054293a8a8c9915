"""Requests with the head of one that was refused: refused without being parsed, and only if they are the same."""

from collections.abc import Iterator

import pytest
from starlette.responses import Response

from service.web.exchange import Headers, Refusal, Reply
from service.web.refusals import Refusals
from tests.sockets import BODY, HEAD, LENGTH, Address, Connection, echoing

FULL = Response("too many", 429, {"Retry-After": "1"})
REQUEST = HEAD + LENGTH + BODY
DEFAULTS = [(b"date", b"now")]


class Door:
    """Refuses everything at /asked while it is shut; counts the heads it saw, and the repeats it was asked about."""

    def __init__(self) -> None:
        self.shut = True
        self.heads = 0
        self.repeats = 0

    def at_head(self, method: bytes, target: bytes, headers: Headers) -> Refusal | None:
        assert (b"host", b"localhost") in headers
        self.heads += 1
        return Refusal(FULL, self.again) if self.shut and (method, target) == (b"POST", b"/asked") else None

    def again(self) -> bool:
        self.repeats += 1
        return self.shut


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def where(door: Door) -> Iterator[Address]:
    with echoing(door.at_head) as (address, _):
        yield address


def other_body(size: int) -> bytes:
    return bytes(range(48, 48 + size))


def test_a_request_with_a_refused_head_is_refused_by_the_same_bytes_whatever_its_body(
    where: Address, door: Door
) -> None:
    with Connection(where) as caller:
        seen = []
        for body in (BODY, BODY, other_body(len(BODY))):
            caller.send(HEAD + LENGTH + body)
            status, content = caller.answer()
            seen.append((status, content, {k: v for k, v in caller.headers.items() if k != "date"}))
        assert seen == [seen[0]] * 3
        assert seen[0][:2] == (429, b"too many")
        assert door.repeats in {1, 2}  # the heads are forgotten when the date changes
        assert door.heads + door.repeats == 3


def test_when_there_is_room_again_the_request_reaches_the_application(where: Address, door: Door) -> None:
    with Connection(where) as caller:
        for _ in range(2):
            caller.send(REQUEST)
            assert caller.answer()[0] == 429
        door.shut = False
        caller.send(HEAD + LENGTH + other_body(len(BODY)))
        assert caller.answer() == (200, b"got " + other_body(len(BODY)))


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 3\r\n\r\nabc",
        HEAD + b"X-Name: value\r\n" + LENGTH + BODY,
        REQUEST.replace(b"/asked", b"/other"),
        b"\r\n" + REQUEST,
    ],
    ids=["length", "header", "path", "line"],
)
def test_another_head_is_parsed(where: Address, door: Door, request_: bytes) -> None:
    with Connection(where) as caller:
        caller.send(REQUEST)
        assert caller.answer()[0] == 429
        caller.send(request_)
        caller.answer()
        assert (door.heads, door.repeats) == (2, 0)


def test_pieces_and_several_requests_at_once_are_parsed_and_keep_their_order(where: Address, door: Door) -> None:
    other = b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Connection(where) as caller:
        caller.send(REQUEST)
        assert caller.answer()[0] == 429
        caller.send(REQUEST + REQUEST + other)
        assert [caller.answer()[0] for _ in range(3)] == [429, 429, 200]
        caller.send(other + REQUEST)
        assert [caller.answer()[0] for _ in range(2)] == [200, 200]  # while one is answered, the next is not refused
        caller.send(HEAD + LENGTH)
        assert caller.answer()[0] == 429
        caller.send(BODY + REQUEST)
        assert caller.answer()[0] == 429
        assert door.repeats == 0


@pytest.mark.parametrize("more", [b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_head_that_ends_the_connection_or_has_no_length_is_not_remembered(
    where: Address, door: Door, more: bytes
) -> None:
    head = HEAD + more + (LENGTH + BODY if b"close" in more else b"\r\n3\r\nabc\r\n0\r\n\r\n")
    for _ in range(2):
        with Connection(where) as caller:
            caller.send(head)
            assert caller.answer()[0] == 429
            if b"close" in more:
                assert caller.read.read() == b""
            else:
                caller.send(head)
                assert caller.answer()[0] == 429
    assert door.repeats == 0


def known(refusals: Refusals, head: bytes, body: bytes = b"") -> bool:
    return refusals.find(head + body, DEFAULTS) is not None


@pytest.fixture
def refusals() -> Refusals:
    found = Refusals()
    found.answer(FULL, DEFAULTS, content_of)
    return found


def content_of(reply: Reply) -> bytes:
    return b"%d" % reply[0]


def test_the_bytes_of_a_refusal_are_made_once_until_the_date_changes(refusals: Refusals) -> None:
    def unexpected(_: Reply) -> bytes:
        raise AssertionError

    assert refusals.answer(FULL, DEFAULTS, unexpected) == b"429"
    assert refusals.answer(FULL, list(DEFAULTS), lambda reply: content_of(reply) + b"!") == b"429!"


def test_heads_are_bounded_in_size_and_number_and_forgotten_when_the_date_changes(refusals: Refusals) -> None:
    refusal = Refusal(FULL, lambda: True)
    long = b"POST /" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"
    refusals.keep(long, 0, refusal)
    assert not known(refusals, long)
    heads = [b"POST /%d HTTP/1.1\r\n\r\n" % number for number in range(300)]
    for head in heads:
        refusals.keep(head + b"abc", 3, refusal)
        assert known(refusals, head, b"def")
        assert not known(refusals, head, b"de")
    assert len(refusals.heads) <= 256
    assert refusals.find(heads[-1] + b"abc", list(DEFAULTS)) is None
    assert not refusals.heads


def test_no_head_is_kept_of_chunks_or_of_two_requests(refusals: Refusals) -> None:
    refusal = Refusal(FULL, lambda: True)
    one = b"POST / HTTP/1.1\r\n\r\n"
    refusals.keep(one + b"3\r\nabc\r\n0\r\n\r\n", 3, refusal)
    refusals.keep(one + one, 0, refusal)
    assert not refusals.heads


def test_servers_share_nothing() -> None:
    class State:
        pass

    first, second = State(), State()
    assert Refusals.of(first) is Refusals.of(first)
    assert Refusals.of(first) is not Refusals.of(second)
