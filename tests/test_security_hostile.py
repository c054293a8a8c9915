"""Hostile clients against a running service: each gets a defined response, and no resource is leaked."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.floods import Hostile, answer, connected, send
from tests.fakes import running_server
from tests.hostile import INSIDE, SEVEN, all_of_them, forms, pictures
from tests.hostile_client import normal, web_process
from tests.waiting import until

pytestmark = pytest.mark.slow

HEAD = b"POST /predict/mnist HTTP/1.1\r\nHost: localhost\r\n"
_VANISHED_MAY_LEAVE = 10 * 2**20  # bytes, after all of them
_MAY_GROW = 50 * 10**6  # bytes


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # The default is above the list's sizes; a faster form takes memory of its own once it is opened.
    with running_server({"TORCHLOOP_MAX_CHECKPOINT_BYTES": str(2**24), "TORCHLOOP_FORM": "fp32"}) as url:
        yield url


def slow(url: str, sent: bytes) -> tuple[int, str]:
    """Return the response to a client that sends only these bytes."""
    with connected(url) as connection:
        connection.sendall(sent)
        received = connection.makefile("rb").read()
    found = re.match(rb"HTTP/1.1 (\d{3})", received)
    return int(found[1]) if found else 0, received.decode("latin-1")


def ask(url: str, hostile: Hostile) -> tuple[int, Any]:
    with connected(url) as connection:
        send(connection, hostile)
        status, media_type, body = answer(connection)
    assert status in hostile.statuses, (hostile.name, status, body)
    assert status == 200 or media_type == "application/problem+json"
    said = json.dumps(body)
    assert not INSIDE.search(said), said
    assert len(said) < 1000
    return status, body


@dataclass
class Told:
    """Number of hostile requests, the responses to all of them by name, and the memory growth after each."""

    sent: int
    answers: dict[str, tuple[int, Any]]
    growth: dict[str, int]

    def refused(self, *names: str) -> None:
        """Each of these was sent, and its answer, which is one of those it may get, is a refusal."""
        for name in names:
            assert 400 <= self.answers[name][0] < 500, (name, self.answers[name])


@pytest.fixture(scope="module")
def told(url: str) -> Told:
    """The list is sent once; whatever is answered wrongly fails all the tests of its answers."""
    process = web_process(url)
    for _ in range(3):
        normal(url)
    before = process.memory_info().rss
    hostiles = all_of_them()
    found = Told(len(hostiles), {}, {})
    for hostile in hostiles:
        found.answers[hostile.name] = ask(url, hostile)
        found.growth[hostile.name] = process.memory_info().rss - before
        normal(url)
    return found


def test_the_whole_list_gets_clear_answers_and_leaves_no_memory_behind(told: Told) -> None:
    assert len(told.answers) == told.sent
    table = [
        f"| {name} | {status} {body.get('title', '')} | {told.growth[name] / 2**20:+.1f} |"
        for name, (status, body) in told.answers.items()
    ]
    assert list(told.growth.values())[-1] < _MAY_GROW, "\n".join(table)


def test_s14_a_million_chunks_take_no_memory(told: Told, url: str) -> None:
    """What chunks hold on to would show each time; other work of the process may grow it once."""
    assert told.answers["a million chunks"][0] == 422
    growth = []
    for _ in range(3):
        before = web_process(url).memory_info().rss
        again = Hostile("again", "/predict/mnist", [], (b"x" for _ in range(1_000_000)), {422})
        ask(url, again)
        normal(url)
        growth.append(web_process(url).memory_info().rss - before)
        if growth[-1] < 2**20:
            return
    pytest.fail(f"the web process grew by {growth} bytes")


def test_s17_false_sizes_and_endless_nesting_are_rejected(told: Told) -> None:
    told.refused(*(name for name in told.answers if "npy" in name or "levels" in name))
    told.refused("a declared terabyte", "a declared 10^30", "a huge chunk")


def test_s17_a_declared_size_allocates_nothing(url: str) -> None:
    normal(url)
    before = web_process(url).memory_info().rss
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connected(url))
            connection.sendall(HEAD + b"Content-Length: 16000000\r\n\r\nx")
        normal(url)
        assert web_process(url).memory_info().rss - before < 4 * 2**20  # 320 MB were declared


def test_s18_bombs_and_endless_heads_are_refused(told: Told) -> None:
    told.refused(*(name for name in told.answers if "bomb" in name or "header" in name or "png of" in name))


def test_s20_a_body_above_the_limit_is_rejected_while_it_arrives(told: Told) -> None:
    for name in ("endless chunks", "endless to train", "endless to upload", "a declared terabyte"):
        assert told.answers[name][0] == 413, name


def test_s22_an_address_for_a_picture_is_an_error(told: Told) -> None:
    told.refused("a name for a picture", "200,000 fields", "one field of 15 MB")


def test_s28_framing_that_two_parsers_could_read_differently_is_refused(told: Told) -> None:
    for name in ("both lengths", "two lengths", "no length", "a chunk that lies", "a huge chunk"):
        assert told.answers[name][0] == 400, name


def test_s30_false_picture_headers_and_rare_formats_are_rejected(told: Told) -> None:
    told.refused(*(hostile.name for hostile in pictures() if hostile.name != "half a GIF"))


def test_s33_upload_names_and_broken_forms_change_nothing(told: Told) -> None:
    told.refused(*(hostile.name for hostile in forms()))


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
    """Count the open files and sockets of the idle service."""
    process = web_process(url)
    until(lambda: not [at for at in process.net_connections("tcp") if at.status != psutil.CONN_LISTEN])
    return process.num_fds()


def test_s17_thousands_of_disconnected_clients_leave_nothing_behind(url: str) -> None:
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
