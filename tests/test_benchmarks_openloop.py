"""Open-loop client: latency counts from the due time, and requests without a response are lost."""

import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from benchmarks import shapes
from benchmarks.openloop import LOST, Answer, Client, p99s_ms, post
from benchmarks.overload import Phase, table_of

pytestmark = pytest.mark.slow


class Handler(socketserver.StreamRequestHandler):
    """Answers 200 to each request, in two pieces; hangs up on the next one of a connection after `most`."""

    most = 2

    def handle(self) -> None:
        for _ in range(self.most):
            length = 0
            while (line := self.rfile.readline()) not in {b"\r\n", b""}:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if self.rfile.read(length) != b"body":
                return
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            self.wfile.flush()
            self.wfile.write(b"ngth: 2\r\n\r\nok")


class Patient(Handler):
    """Hangs up on no request."""

    most = 1000


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def client_of(handler: type[Handler], *, closes: bool = False) -> Iterator[Client]:
    """A client of a server with that handler."""
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, port = server.server_address[:2]
        with Client(str(host), int(port), "/predict/mnist", b"body", "image/png", closes=closes) as client:
            yield client
        server.shutdown()
        thread.join()


@pytest.fixture
def client() -> Iterator[Client]:
    with client_of(Handler) as client:
        yield client


def test_every_due_request_is_recorded_once() -> None:
    with client_of(Patient) as client:
        answers = client.open_loop(rate=200, seconds=0.2, connections=50)
    assert [answer.status for answer in answers] == [200] * 40
    assert sorted(answer.at for answer in answers) == pytest.approx([number / 200 for number in range(40)])
    assert all(answer.took_s >= 0 for answer in answers)


def test_a_connection_that_breaks_is_lost_and_replaced_for_the_next_run(client: Client) -> None:
    first = client.closed_loop(1, 60, at_most=3)
    assert [answer.status for answer in first] == [200, 200, LOST]
    assert [answer.status for answer in client.closed_loop(1, 60, at_most=1)] == [200]


def test_a_connection_that_breaks_is_replaced_within_the_run_also_if_it_was_idle(client: Client) -> None:
    answers = client.open_loop(rate=100, seconds=0.3, connections=2)
    assert len(answers) == 30
    assert {answer.status for answer in answers} <= {200, LOST}


def test_an_open_loop_ends_when_it_is_told_to() -> None:
    stop = threading.Event()
    with client_of(Patient) as client, ThreadPoolExecutor() as pool:
        running = pool.submit(client.open_loop_until, stop, 200, 8)
        assert not running.done()
        stop.set()
        answers = running.result()
    assert {answer.status for answer in answers} <= {200}


def test_a_client_whose_server_closes_connections_opens_another_one_for_each_request() -> None:
    with client_of(Handler, closes=True) as client:
        answers = client.closed_loop(1, 60, at_most=5)
    assert [answer.status for answer in answers] == [200] * 5


def test_requests_are_sent_in_turn() -> None:
    head, _, _ = post("/", b"", "text/plain").partition(b"\r\n\r\n")
    assert post("/", b"abc", "text/plain", "X: 1", version="1.0") == (
        b"POST / HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nX: 1\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert head.startswith(b"POST / HTTP/1.1\r\n")


def test_the_overload_table_shows_counts_costs_and_aims() -> None:
    fast, slow, refused = Answer(1, 0.01, 200), Answer(2, 0.03, 200), Answer(3, 0.001, 429)
    phases = {name: Phase([fast, fast], 1) for name in ("calm", "after", "recovered", "retrying", "served again")}
    phases["sustained"] = Phase([fast, fast], 1, 0.0002)
    phases["flood"] = Phase([fast, slow, refused, Answer(0, 1, LOST)], 1, 0.00022)
    told = table_of([{**phases, "settled": phases["flood"].since(1)}])
    assert "sustained with 64 callers: 2 requests/s; medians of 1 rounds" in told
    flood = next(line for line in told.splitlines() if line.startswith("  flood"))
    assert flood.split() == ["flood", "4", "2", "1", "1", "10.0", "30.0", "1.0"]
    assert [line.split()[-1] for line in told.splitlines() if line.startswith(("  an answer", "  a refusal"))] == [
        "100",
        "20.0",
    ]
    assert "p99 of admitted requests in the flood / sustained" in told
    reached = [line.split("  ")[-4:] for line in told.splitlines() if "at most" in line or "at least" in line]
    assert len(reached) == 7


def test_the_table_of_shapes_compares_closing_requests_with_new_connections_too() -> None:
    seen = {shapes.PLAIN: 100.0, "form": 120.0, shapes.NEW: 200.0, "PNG, HTTP/1.0": 220.0}
    seen |= {shapes.BARE_PLAIN: 20.0, shapes.BARE_NEW: 70.0}
    told = shapes.table_of([seen, seen]).splitlines()
    rows = {line.split("  ")[1]: line.split() for line in told if "/" in line and "at most" in line}
    assert rows["form / PNG"][-5:] == ["1.2", "at", "most", "1.3", "yes"]
    assert rows["PNG, HTTP/1.0 / PNG"][-1] == "no"
    assert rows[f"PNG, HTTP/1.0 / {shapes.NEW}"][-5:] == ["1.1", "at", "most", "1.3", "yes"]
    added = "what a new connection adds / what it adds to a bare ASGI application"
    assert rows[added][-5:] == ["2", "at", "most", "1.3", "no"]


def test_each_shape_is_one_whole_request() -> None:
    for request, _ in shapes.requests().values():
        head, _, body = request.partition(b"\r\n\r\n")
        assert int(head.rpartition(b"Content-Length: ")[2]) == len(body)


def test_the_p99_of_a_window_is_that_of_the_requests_due_in_it() -> None:
    quiet = [Answer(number / 200, 0.001, 200) for number in range(300)]
    spoilt = [Answer(0.5 + number / 200, 0.080, 200) for number in range(50)]
    assert p99s_ms([*reversed(quiet), *spoilt]) == [1.0, 80.0, 1.0]
    assert p99s_ms(quiet, 10.0) == [1.0]
    assert p99s_ms([Answer(0.0, one / 1000, 200) for one in range(1, 101)]) == [99.0]
