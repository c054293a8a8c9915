"""A really started service that may have one request waiting: who comes too much is refused by the head alone."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes import running_server
from tests.test_faults import until

BODY = b'{"inputs": [[0.5]]}'
HEAD = b"POST /predict/regressor HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_QUEUE_LIMIT": "1"}) as url:
        httpx.get(f"{url}/health/ready").raise_for_status()
        yield url


class Connection:
    """A socket and what is read from it."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        self._socket = socket.create_connection((where.hostname, where.port), timeout=60)
        self.send = self._socket.sendall
        self.read = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.read.close()
        self._socket.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of the next answer."""
        status = int(self.read.readline().split()[1])
        headers = {}
        while line := self.read.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return status, headers, self.read.read(int(headers["content-length"]))


def waiting(url: str, count: int) -> bool:
    return f"torchloop_waiting_requests {count}.0" in httpx.get(f"{url}/metrics").text


@contextmanager
def one_waiting(url: str) -> Iterator[None]:
    """Somebody whose body is not there yet; in the end it comes, and is answered."""
    with Connection(url) as first:
        first.send(HEAD + LENGTH)
        until(lambda: waiting(url, 1))
        yield
        first.send(BODY)
        assert first.answer()[0] == 200
    until(lambda: waiting(url, 0))


def test_the_refusal_comes_before_the_body_and_the_connection_stays_usable(url: str) -> None:
    with Connection(url) as second:
        with one_waiting(url):
            second.send(HEAD + LENGTH)
            status, headers, content = second.answer()
            assert (status, headers["retry-after"]) == (429, "1")
            assert headers["content-type"] == "application/problem+json"
            assert b"Queue full" in content
            second.send(BODY)  # the rest of what was refused is no request of its own
            second.send(HEAD + LENGTH + BODY)
            assert second.answer()[0] == 429
        second.send(HEAD + LENGTH + BODY)
        assert second.answer()[0] == 200


def test_a_refused_caller_that_wants_to_be_hung_up_on_is(url: str) -> None:
    with one_waiting(url), Connection(url) as second:
        second.send(HEAD + b"Connection: close\r\n" + LENGTH + BODY)
        assert second.answer()[0] == 429
        assert second.read.read() == b""


def test_answers_keep_the_order_of_requests_that_were_sent_together(url: str) -> None:
    with one_waiting(url), Connection(url) as second:
        health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        second.send(health + HEAD + LENGTH + BODY + health)
        assert [second.answer()[0] for _ in range(3)] == [200, 429, 200]


def test_a_refusal_is_counted_and_other_routes_are_open(url: str) -> None:
    with one_waiting(url):
        before = refused(url)
        assert httpx.post(f"{url}/predict/regressor", content=BODY).status_code == 429
        assert refused(url) == before + 1
        infer = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
        assert httpx.post(f"{url}/v2/models/regressor/infer", json=infer).status_code == 429
        assert httpx.get(f"{url}/models").status_code == 200


def refused(url: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(
        float(line.split()[1])
        for line in lines
        if line.startswith('torchloop_requests_total{model="regressor",status="429"}')
    )
