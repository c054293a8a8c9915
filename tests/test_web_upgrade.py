"""Upgrade headers are ignored and CONNECT is refused: a body is never parsed as a request (request smuggling).

Pieces are handed to `data_received` of the connection's protocol, so that no two of them arrive as one.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from starlette.responses import Response

from service.app import create_app
from service.execution.recipes import RecipeSchema
from service.settings import Key, Settings
from service.web.exchange import Headers, Refusal, Respond
from service.web.server import Server
from tests.fakes import InProcess
from tests.serving import LINE_RECIPE
from tests.sockets import Address, Connection, echoing, listening
from tests.templates import migrated
from tests.upgrades import CASES, CLIENTS, FRAMINGS, H2C, INNER, JAVA, LAST, NEXT, UPGRADES, Case, framed

WAYS = {"fast path": b"directly ", "application": b"got ", "refused": b"too many"}


class Fed:
    """A connection that passes each piece to its server by a separate call."""

    def __init__(self, caller: Connection, server: Server) -> None:
        caller.send(LAST.replace(b"Connection: close\r\n", b""))
        caller.answer()  # so the one connection of the server is this one
        (self._protocol,) = server.server_state.connections
        self._caller = caller

    def answers(self, *pieces: bytes, count: int = 1) -> list[tuple[int, bytes]]:
        for piece in pieces:
            self._protocol.loop.call_soon_threadsafe(self._protocol.data_received, piece)
        return [self._caller.answer() for _ in range(count)]

    def end(self) -> None:
        """Send a last request: no more than its answer is still to come."""
        self._caller.send(LAST)
        self._caller.answer()
        assert self._caller.headers["connection"] == "close"
        assert self._caller.read.read() == b""


class Counter:
    """An Exchange that answers at once with its body."""

    def begin(self, body: bytes, respond: Respond) -> bool:
        content = b"directly " + body
        respond((200, [(b"content-length", b"%d" % len(content))], content))
        return True

    def abandon(self) -> None:
        pass


def at_head(way: str, method: bytes, target: bytes, headers: Headers) -> Refusal | Counter | None:
    assert b"upgrade" not in dict(headers)
    if (method, target) != (b"POST", b"/asked") or way == "application":
        return None
    return Counter() if way == "fast path" else Refusal(Response("too many", 429), lambda: True)


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def started(way: str) -> Iterator[tuple[Address, Server]]:
    with echoing(partial(at_head, way)) as found:
        yield found


@pytest.fixture
def fed(started: tuple[Address, Server]) -> Iterator[Fed]:
    where, server = started
    with Connection(where) as caller:
        fed = Fed(caller, server)
        yield fed
        fed.end()


def asked(body: bytes, framing: str, upgrade: bytes = H2C) -> bytes:
    return framed(b"POST /asked HTTP/1.1\r\nHost: localhost\r\n", body, upgrade)[framing]


def expected(way: str, body: bytes) -> tuple[int, bytes]:
    return (429, WAYS[way]) if way == "refused" else (200, WAYS[way] + body)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_s36_a_body_behind_an_upgrade_is_no_request(fed: Fed, way: str, framing: str, upgrade: str) -> None:
    request = asked(INNER, framing, UPGRADES[upgrade])
    wanted = [expected(way, INNER), (200, b"got next")]
    assert fed.answers(request + NEXT, count=2) == wanted
    head, end, body = request.partition(b"\r\n\r\n")
    assert fed.answers(head + end, body, NEXT, count=2) == wanted
    assert fed.answers(*(bytes([byte]) for byte in request + NEXT), count=2) == wanted


@pytest.mark.many
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_s36_no_place_to_split_a_request_makes_its_body_a_request(
    fed: Fed,
    way: str,
    framing: str,
    upgrade: str,
) -> None:
    sent = asked(INNER, framing, UPGRADES[upgrade]) + NEXT
    wanted = [expected(way, INNER), (200, b"got next")]
    for cut in range(1, len(sent)):
        assert fed.answers(sent[:cut], sent[cut:], count=2) == wanted, cut


@pytest.mark.parametrize("framing", FRAMINGS)
def test_requests_that_are_sent_together_are_answered_in_order(fed: Fed, way: str, framing: str) -> None:
    bodies = [b"%d " % number + INNER for number in range(5)]
    sent = b"".join(asked(body, framing, [H2C, b""][number % 2]) + NEXT for number, body in enumerate(bodies))
    first, *others = bodies
    answers = fed.answers(sent, count=10)
    assert answers[::2] == [expected(way, first), *((200, b"got " + body) for body in others)]  # behind an open request
    assert answers[1::2] == [(200, b"got next")] * 5


@pytest.mark.many
def test_thousands_of_upgrades_in_one_piece_are_answered_each(fed: Fed) -> None:
    get = b"GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    assert fed.answers(get * 3000, count=3000) == [(200, b"got ")] * 3000


def test_a_client_that_expects_100_continue_may_ask_for_an_upgrade(started: tuple[Address, Server], way: str) -> None:
    head, end, body = asked(INNER, "sized", H2C + b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with Connection(started[0]) as caller:
        caller.send(head + end)
        if way == "refused":
            assert caller.answer() == expected(way, INNER)
        else:
            assert caller.answer() == (100, b"")
            caller.send(body + LAST)
            assert [caller.answer() for _ in range(2)] == [(200, b"got " + INNER), (200, b"got ")]
        assert caller.read.read() == b""


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1\r\nConnection: close"], ids=["HTTP/1.0", "close"])
def test_nothing_behind_a_last_request_with_an_upgrade_is_answered(
    started: tuple[Address, Server],
    way: str,
    version: bytes,
) -> None:
    with Connection(started[0]) as caller:
        caller.send(asked(INNER, "sized").replace(b"HTTP/1.1", version, 1) + INNER)
        assert caller.answer() in (expected(way, INNER), expected("application", INNER))
        assert caller.read.read() == b""


@pytest.mark.parametrize(
    "target",
    [b"localhost:80 HTTP/1.1", b"localhost:80 HTTP/1.1\r\n" + H2C[:-2], b"localhost:80 HTTP/1.0", b"/asked HTTP/1.1"],
    ids=["plain", "with an upgrade", "HTTP/1.0", "a path"],
)
def test_s36_connect_is_refused_and_what_follows_is_not_read(started: tuple[Address, Server], target: bytes) -> None:
    with Connection(started[0]) as caller:
        caller.send(b"CONNECT %b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (target, len(INNER)) + INNER)
        status, content = caller.answer()
        assert status == 501
        assert json.loads(content)["status"] == status
        assert caller.headers["connection"] == "close"
        assert caller.read.read() == b""


@pytest.mark.parametrize(
    "upgrade",
    [
        b"Connection: upgrade\r\nUpgrade:\r\n h2c\r\n",
        b"Connection:\r\n\tupgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade : h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\n",
    ],
    ids=["a folded Upgrade", "a folded Connection", "a space before the colon", "a bare line feed"],
)
def test_s36_a_malformed_upgrade_closes_the_connection(
    started: tuple[Address, Server],
    upgrade: bytes,
) -> None:
    with Connection(started[0]) as caller:
        caller.send(asked(INNER, "sized", upgrade) + INNER)
        assert caller.answer()[0] == 400
        assert caller.read.read() == b""


@pytest.mark.parametrize("more", [b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_s36_an_upgrade_does_not_allow_two_framings(started: tuple[Address, Server], more: bytes) -> None:
    with Connection(started[0]) as caller:
        caller.send(asked(INNER, "sized", H2C + more) + INNER)
        assert caller.answer()[0] == 400
        assert caller.read.read() == b""


async def recipes() -> Mapping[str, RecipeSchema]:
    return {"regressor": LINE_RECIPE}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Address, Server]]:
    app = create_app(
        Settings(store=migrated(tmp_path_factory.mktemp("store")), max_body_bytes=4000),
        read=recipes,
        start_child=partial(InProcess, None),
    )
    with listening(app) as found:
        yield found


def masked(content: bytes) -> bytes:
    """Without identifiers and times, which differ from one job to the next."""
    return re.sub(rb'"[0-9a-f]{32}"|"[0-9a-f]{11}-[0-9a-f-]+"|\d{4}-\d\d-\d\dT[\d:.+Z]*|\d+\.\d+', b"", content)


@pytest.mark.many
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path} {case.status}")
def test_s36_every_route_answers_as_without_the_upgrade(real: tuple[Address, Server], case: Case) -> None:
    with Connection(real[0]) as caller:

        def answer(request: bytes) -> tuple[int, bytes]:
            caller.send(request + INNER.replace(b"/other?inner", b"/health/live"))
            status, content = caller.answer(bodiless=case.method == "HEAD")
            assert caller.answer()[0] == 200
            return status, masked(content)

        wanted = answer(framed(case.head, case.body)["sized"])
        assert wanted[0] == case.status
        for framing in FRAMINGS:
            for upgrade in ("h2c", "websocket"):
                assert answer(framed(case.head, case.body, UPGRADES[upgrade])[framing]) == wanted, (framing, upgrade)
        caller.send(LAST)
        assert caller.answer()[0] == 404
        assert caller.read.read() == b""


@pytest.mark.many
@pytest.mark.parametrize("framing", FRAMINGS)
def test_s36_the_real_application_answers_a_request_split_anywhere(real: tuple[Address, Server], framing: str) -> None:
    where, server = real
    case = CASES[0]
    sent = framed(case.head, case.body, H2C)[framing] + INNER
    with Connection(where) as caller:
        fed = Fed(caller, server)
        ((status, content),) = fed.answers(framed(case.head, case.body)[framing])
        assert status == 200
        for cut in range(1, len(sent)):
            answered, inner = fed.answers(sent[:cut], sent[cut:], count=2)
            assert (answered[0], masked(answered[1]), inner[0]) == (200, masked(content), 404), cut
        fed.end()


@pytest.mark.parametrize("key", ["", "wrong", "reads"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_s36_a_body_does_not_act_for_another_caller(locked: tuple[Address, Server], key: str, framing: str) -> None:
    """Each answer belongs to its request when a proxy sends two callers' requests over one connection."""
    more = f"Authorization: Bearer {key}\r\n" if key else ""
    inner = b"POST /models/regressor/rollback HTTP/1.1\r\nHost: localhost\r\nX-Rest: "
    case = Case("POST", "/models/regressor/promote", inner, more=more, status=403 if key == "reads" else 401)
    admin = b"GET /models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer all\r\n\r\n"
    head, end, body = framed(case.head, case.body, H2C)[framing].partition(b"\r\n\r\n")
    where, server = locked
    with Connection(where) as caller:
        fed = Fed(caller, server)
        refused, answered = fed.answers(head + end, body, admin, count=2)
        fed.end()
    assert refused[0] == case.status
    assert (answered[0], "models" in json.loads(answered[1])) == (200, True)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Address, Server]]:
    keys = (Key(scope="admin", secret="all"), Key(scope="predict", secret="reads"))  # noqa: S106 - made up
    settings = Settings(store=migrated(tmp_path_factory.mktemp("store")), api_keys=keys)
    with listening(create_app(settings, read=recipes, start_child=partial(InProcess, None))) as found:
        yield found


@pytest.mark.slow
def test_curl_that_asks_for_http2_is_answered(real: tuple[Address, Server]) -> None:
    curl = shutil.which("curl")
    if (
        curl is None
        or "HTTP2" not in subprocess.run([curl, "--version"], check=True, capture_output=True, text=True).stdout
    ):
        pytest.skip("no curl with HTTP/2 on this machine: install it to try `curl --http2` on the service")
    host, port = real[0]
    for case in CLIENTS:
        for framing in ("X-Sized: yes", "Transfer-Encoding: chunked"):
            options = ["--http2", "-sS", "--max-time", "60", "-X", case.method, "-w", "\n%{http_code}"]
            lines = ["-H", f"Content-Type: {case.media_type}", "-H", f"Host: {case.host}", "-H", framing]
            command = [curl, *options, *lines, "--data-binary", "@-", f"http://{host}:{port}{case.path}"]
            done = subprocess.run(command, input=case.body, capture_output=True, check=True)
            content, _, status = done.stdout.rpartition(b"\n")
            assert int(status) == case.status, (case, content)


@pytest.mark.slow
def test_the_http_client_of_java_is_answered(real: tuple[Address, Server], tmp_path: Path) -> None:
    java = shutil.which("java")
    if java is None:
        pytest.skip("no java on this machine: install a JDK (11 or newer) to try its HttpClient on the service")
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    host, port = real[0]
    cases = [case for case in CLIENTS if case.host == "localhost"] * 2
    arguments = [part for case in cases for part in (case.method, f"http://{host}:{port}{case.path}", case.body)]
    done = subprocess.run([java, source, *arguments], check=False, capture_output=True, text=True, timeout=120)
    if done.returncode and "jdk.compiler" in done.stderr:
        pytest.skip("this java runs no source files: install a JDK (11 or newer) to try its HttpClient on the service")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(case.status) for case in cases]
