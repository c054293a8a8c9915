"""Trailer fields of a chunked body are discarded: they are never headers of the request."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.app import create_app
from service.settings import Key, Settings
from service.web.exchange import AT_HEAD, AtHead, Headers, Refusal, Respond
from service.web.protocol import MAX_HEAD_BYTES, MAX_HEADERS
from service.web.server import Server
from tests.fakes import InProcess
from tests.serving import no_recipes
from tests.sockets import Address, Connection, listening
from tests.templates import migrated

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\nchunk\r\n0\r\n"
TRAILERS = [
    b"Authorization: Bearer all\r\n",
    b"Host: elsewhere\r\n",
    b"Origin: http://elsewhere\r\n",
    b"Content-Type: application/json\r\n",
    b"X-Forwarded-For: 10.0.0.1\r\nX-Two: 2\r\n",
    b"Expect: 100-continue\r\n",
    b"Content-Encoding: gzip\r\n",
    b"X-Empty:\r\n",
]
WAYS = ["application", "fast path", "fast path falls through", "refused"]


class Echo:
    """An Exchange that answers with its headers, or leaves the request to the application."""

    def __init__(self, headers: Headers, *, answers: bool) -> None:
        self._headers = headers
        self._answers = answers

    def begin(self, body: bytes, respond: Respond) -> bool:
        content = _content(self._headers, body)
        if self._answers:
            respond((200, [(b"content-length", b"%d" % len(content))], content))
        return self._answers

    def abandon(self) -> None:
        pass


def _content(headers: Headers, body: bytes) -> bytes:
    fields = [[name.decode(), value.decode()] for name, value in headers]
    return json.dumps({"headers": fields, "body": body.decode()}).encode()


def at_head(way: str, method: bytes, _: bytes, headers: Headers) -> Refusal | Echo | None:
    if method != b"POST" or way == "application":
        return None
    return (
        Refusal(Response("too many", 429), lambda: True)
        if way == "refused"
        else Echo(headers, answers=way == "fast path")
    )


async def echo(request: Request) -> Response:
    body = await request.body()  # the trailer fields have arrived when it is complete
    return Response(_content(request.scope["headers"], body))


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def started(way: str) -> Iterator[tuple[Address, Server]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, AtHead]]:
        yield {AT_HEAD: partial(at_head, way)}

    with listening(Starlette(routes=[Route("/", echo, methods=["GET", "POST"])], lifespan=lifespan)) as found:
        yield found


def posted(trailers: bytes, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\n" + more + CHUNKED + trailers + b"\r\n"


def expected(way: str, more: list[list[str]]) -> tuple[int, object]:
    if way == "refused":
        return 429, "too many"
    return 200, {"headers": [["host", "localhost"], *more, ["transfer-encoding", "chunked"]], "body": "chunk"}


def read(caller: Connection) -> tuple[int, object]:
    status, content = caller.answer()
    return status, content.decode() if status == 429 else json.loads(content)


@pytest.mark.parametrize("trailers", [*TRAILERS, b"".join(TRAILERS)], ids=lambda fields: fields[:20].decode().strip())
def test_s37_trailer_fields_are_never_headers(started: tuple[Address, Server], way: str, trailers: bytes) -> None:
    with Connection(started[0]) as caller:
        for _ in range(2):  # the second request on a connection, too
            caller.send(posted(trailers))
            assert read(caller) == expected(way, [])
        caller.send(posted(trailers) + posted(trailers, b"X-Head: yes\r\n") + posted(b""))
        assert [read(caller) for _ in range(3)] == [expected(way, more) for more in ([], [["x-head", "yes"]], [])]


def test_s37_trailer_fields_that_arrive_byte_by_byte_are_never_headers(
    started: tuple[Address, Server],
    way: str,
) -> None:
    where, server = started
    with Connection(where) as caller:
        caller.send(posted(b""))
        read(caller)
        (protocol,) = server.server_state.connections
        for byte in posted(b"".join(TRAILERS)):
            protocol.loop.call_soon_threadsafe(protocol.data_received, bytes([byte]))
        assert read(caller) == expected(way, [])


@pytest.mark.parametrize(
    "trailers",
    [
        b"X-Many: 1\r\n" * (MAX_HEADERS + 1),
        b"X-Large: " + b"x" * MAX_HEAD_BYTES + b"\r\n",
        b"".join(b"X-Large: " + b"x" * (MAX_HEAD_BYTES // 4) + b"\r\n" for _ in range(4)),
        b"X-Endless: " + b"x" * 1_000_000,
    ],
    ids=["many fields", "a large field", "large fields", "an endless field"],
)
def test_s37_too_many_trailer_bytes_end_the_connection(
    started: tuple[Address, Server],
    way: str,
    trailers: bytes,
) -> None:
    with Connection(started[0]) as caller:
        sent = posted(trailers)
        if b"Endless" in trailers:
            sent = sent.removesuffix(b"\r\n\r\n")
        try:
            caller.send(sent)
            assert caller.answer()[0] == (429 if way == "refused" else 431)
            assert caller.read.read() == b""
        except ConnectionError:  # closed while the rest was still being sent
            assert b"Endless" in trailers


def test_s37_the_greatest_number_of_trailer_fields_is_accepted(started: tuple[Address, Server], way: str) -> None:
    with Connection(started[0]) as caller:
        caller.send(posted(b"X-Many: 1\r\n" * MAX_HEADERS))
        assert read(caller) == expected(way, [])


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    settings = Settings(
        store=tmp_path_factory.mktemp("store"),
        api_keys=(Key(scope="admin", secret="all"),),  # noqa: S106 - made up
    )
    with listening(create_app(settings, read=no_recipes, start_child=partial(InProcess, None))) as (where, _):
        yield where


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    settings = Settings(store=migrated(tmp_path_factory.mktemp("store")))
    with listening(create_app(settings, read=no_recipes, start_child=partial(InProcess, None))) as (where, _):
        yield where


@pytest.mark.parametrize("line", ["GET /models", "POST /models/regressor/rollback", "POST /predict/regressor"])
def test_s37_a_key_in_the_trailer_fields_opens_nothing(locked: Address, line: str) -> None:
    with Connection(locked) as caller:
        head = f"{line} HTTP/1.1\r\nHost: localhost\r\n".encode()
        caller.send(head + CHUNKED + b"Authorization: Bearer all\r\n\r\n")
        assert caller.answer()[0] == 401


@pytest.mark.parametrize(
    ("head", "trailers", "status"),
    [
        (b"Host: elsewhere\r\n", b"Host: localhost\r\n", 421),
        (b"Host: localhost\r\nOrigin: http://elsewhere\r\n", b"Origin: http://localhost\r\n", 403),
        (b"Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", b"Sec-Fetch-Site: same-origin\r\n", 403),
    ],
    ids=["Host", "Origin", "Sec-Fetch-Site"],
)
def test_s37_trailer_fields_do_not_change_the_checks_of_host_and_origin(
    unlocked: Address,
    head: bytes,
    trailers: bytes,
    status: int,
) -> None:
    with Connection(unlocked) as caller:
        caller.send(b"POST /predict/regressor HTTP/1.1\r\n" + head + CHUNKED + trailers + b"\r\n")
        assert caller.answer()[0] == status


def test_s37_a_content_type_in_the_trailer_fields_is_not_read(unlocked: Address) -> None:
    with Connection(unlocked) as caller:
        head = b"POST /predict/regressor HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        caller.send(head + b'10\r\n{"inputs":[[1]]}\r\n0\r\nContent-Type: application/json\r\n\r\n')
        assert caller.answer()[0] == 415
