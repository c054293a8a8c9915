"""A really started service and clients that mean harm: a clear answer each, and nothing left behind."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.fakes import running_server
from tests.hostile import SEVEN, Hostile, all_of_them
from tests.test_faults import until

LIST = all_of_them()
_VANISHED_MAY_LEAVE = 10 * 2**20  # bytes, after all of them
_MAY_GROW = 50 * 10**6  # bytes


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({}) as url:
        yield url


def web_process(url: str) -> psutil.Process:
    """The one that listens there."""
    port = urlsplit(url).port
    for process in psutil.Process().children(recursive=True):
        if any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in process.net_connections("tcp")):
            return process
    raise AssertionError("nobody listens")


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    return socket.create_connection((where.hostname, where.port), timeout=60)


def send(connection: socket.socket, hostile: Hostile) -> None:
    """All of it, or as much as is taken."""
    chunked = not isinstance(hostile.body, bytes)
    framing = [b"Transfer-Encoding: chunked"] if chunked else []
    lines = [
        f"POST {hostile.path} HTTP/1.1".encode(),
        b"Host: localhost",
        b"Connection: close",
        *framing,
        *hostile.head,
    ]
    try:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        if isinstance(hostile.body, bytes):
            connection.sendall(hostile.body)
            return
        gathered = bytearray()
        for piece in hostile.body:
            gathered += b"%x\r\n%s\r\n" % (len(piece), piece)
            if len(gathered) > 2**16:
                connection.sendall(gathered)
                gathered.clear()
        connection.sendall(gathered + b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass


def answer(connection: socket.socket) -> tuple[int, str, Any]:
    """Status, media type and JSON of one answer."""
    received = b""
    try:
        while piece := connection.recv(2**16):
            received += piece
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1.1 (\d{3}) .*?content-type: ([\w/+]+)", head, re.DOTALL | re.IGNORECASE)
    assert found, received[:200]
    return int(found[1]), found[2].decode(), json.loads(body)


def slow(url: str, sent: bytes) -> tuple[int, str]:
    """What a client that sends so much and no more gets to read in the end."""
    with connected(url) as connection:
        connection.sendall(sent)
        received = connection.makefile("rb").read()
    found = re.match(rb"HTTP/1.1 (\d{3})", received)
    return int(found[1]) if found else 0, received.decode("latin-1")


def normal(url: str) -> None:
    """The service answers as ever."""
    response = httpx.post(f"{url}/predict/mnist", content=SEVEN)
    assert response.json()["predictions"][0]["label"] == 7


def ask(url: str, hostile: Hostile) -> tuple[int, Any]:
    with connected(url) as connection:
        send(connection, hostile)
        status, media_type, body = answer(connection)
    assert status in hostile.statuses, (hostile.name, status, body)
    assert status == 200 or media_type == "application/problem+json"
    said = json.dumps(body)
    assert not re.search(r"Traceback|File \\\"|0x[0-9a-f]{6,}|<class|/(work|home|usr|tmp|root)/|\.py\b", said), said
    assert len(said) < 1000
    return status, body


def test_the_whole_list_gets_clear_answers_and_leaves_no_memory_behind(url: str) -> None:
    process = web_process(url)
    normal(url)
    before = process.memory_info().rss
    table = []
    for hostile in LIST:
        status, body = ask(url, hostile)
        resident = process.memory_info().rss
        table.append(f"| {hostile.name} | {status} {body.get('title', '')} | {(resident - before) / 2**20:+.1f} |")
        normal(url)
    growth = process.memory_info().rss - before
    assert growth < _MAY_GROW, "\n".join(table)


HEAD = b"POST /predict/mnist HTTP/1.1\r\nHost: localhost\r\n"


def test_clients_that_never_finish_are_hung_up_on(url: str) -> None:
    halves = {
        b"": 0,
        b"P": 408,
        HEAD: 408,
        HEAD + b"A: b": 408,
        HEAD + b"Content-Length: 100\r\n\r\n": 408,
        HEAD + b"Content-Length: 100\r\n\r\nx": 408,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n": 408,
        HEAD + b"Content-Length: 99999999\r\n\r\nx": 413,
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD: 200,
    }
    with ThreadPoolExecutor(len(halves)) as pool:
        answers = list(pool.map(lambda sent: slow(url, sent), halves))
    assert [status for status, _ in answers] == list(halves.values())
    assert web_process(url).num_fds() == descriptors(url)


def descriptors(url: str) -> int:
    """How many files and sockets the service has open when nobody is connected."""
    process = web_process(url)
    until(lambda: not [at for at in process.net_connections("tcp") if at.status != psutil.CONN_LISTEN])
    return process.num_fds()


def test_clients_that_vanish_by_the_thousand_leave_nothing_behind(url: str) -> None:
    body = HEAD + b"Content-Length: %d\r\n\r\n" % len(SEVEN) + SEVEN
    halves = [body, body[:-1], body[: len(HEAD) + 10], HEAD, b"", body * 3 + HEAD]
    normal(url)
    before = descriptors(url), web_process(url).num_threads()
    resident = web_process(url).memory_info().rss
    for number in range(3000):
        with connected(url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
            connection.sendall(halves[number % len(halves)])
    normal(url)
    assert (descriptors(url), web_process(url).num_threads()) == before
    assert "torchloop_waiting_requests 0.0" in httpx.get(f"{url}/metrics").text
    assert web_process(url).memory_info().rss - resident < _VANISHED_MAY_LEAVE
