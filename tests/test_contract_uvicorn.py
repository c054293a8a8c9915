"""Contract of the undocumented names of uvicorn and httptools that service/web uses: one test for each.

A failure here means that another version changed one of them: adapt service/web/protocol.py, then move the pins of
uvicorn and httptools in pyproject.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn import Config, Server
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

HEAD = b"POST /predict?a=1 HTTP/1.1\r\nHost: x\r\nX-Name: Value\r\nContent-Length: 4\r\n"


class Pipe(asyncio.Transport):
    """Transport that records written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Lane:
    """uvicorn's own protocol on a Pipe; the application keeps its scopes and answers when it is let."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.answer = asyncio.Event()
        self.transport = Pipe()
        self.state = ServerState()
        self.state.default_headers = [(b"server", b"contract")]
        config = Config(self._app, interface="asgi3", log_config=None, timeout_keep_alive=7)
        self.protocol: Any = HttpToolsProtocol(config, self.state, {"key": "state"}, loop)
        self.protocol.connection_made(self.transport)

    async def _app(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive()).get("body", b""))
        await self.answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def run(self) -> None:
        """Let every task go on until it waits or ends."""

        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def finish(self) -> None:
        self.answer.set()
        self.run()


@pytest.fixture
def lane() -> Iterator[Lane]:
    loop = asyncio.new_event_loop()
    lane = Lane(loop)
    yield lane
    lane.finish()
    lane.protocol.connection_lost(None)
    lane.run()
    loop.close()


def test_status_line_holds_the_first_line_of_each_answer() -> None:
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert STATUS_LINE[429] == b"HTTP/1.1 429 Too Many Requests\r\n"
    assert set(STATUS_LINE) >= set(range(200, 600)), "STATUS_LINE no longer has every status"


OVERRIDDEN = {
    "connection_made": ["self", "transport"],
    "connection_lost": ["self", "exc"],
    "data_received": ["self", "data"],
    "on_message_begin": ["self"],
    "on_headers_complete": ["self"],
    "on_body": ["self", "body"],
    "on_message_complete": ["self"],
    "on_response_complete": ["self"],
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_method_has_the_same_parameters(name: str) -> None:
    method = getattr(HttpToolsProtocol, name, None)
    assert method, f"HttpToolsProtocol.{name} is gone: the override is never called"
    assert list(inspect.signature(method).parameters) == OVERRIDDEN[name], f"HttpToolsProtocol.{name} has changed"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_start_asgi_task", ["self", "cycle", "app"]),
        ("on_url", ["self", "url"]),
        ("on_header", ["self", "name", "value"]),
        ("shutdown", ["self"]),
    ],
)
def test_inherited_method_has_the_same_parameters(name: str, parameters: list[str]) -> None:
    method = getattr(HttpToolsProtocol, name, None)
    assert method, f"HttpToolsProtocol.{name} is gone"
    assert list(inspect.signature(method).parameters) == parameters, f"HttpToolsProtocol.{name} has changed"


ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "loop": asyncio.AbstractEventLoop,
    "parser": HttpRequestParser,
    "app_state": dict,
    "server_state": ServerState,
    "timeout_keep_alive": (int, float),
    "transport": asyncio.Transport,
    "flow": FlowControl,
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_connection_has_the_attribute(name: str, lane: Lane) -> None:
    assert isinstance(getattr(lane.protocol, name, None), ATTRIBUTES[name]), f"HttpToolsProtocol.{name} has changed"


def test_logger_is_that_of_uvicorn_errors(lane: Lane) -> None:
    assert lane.protocol.logger.name == "uvicorn.error"


def test_headers_and_cycle_are_none_before_the_first_request(lane: Lane) -> None:
    assert lane.protocol.headers is None
    assert lane.protocol.cycle is None


def test_connections_hold_the_connection_until_it_is_lost(lane: Lane) -> None:
    assert lane.state.connections == {lane.protocol}
    lane.protocol.connection_lost(None)
    assert not lane.state.connections
    assert lane.protocol.parser is None, "connection_lost no longer drops the parser"


def test_request_fields_are_kept_while_the_head_is_parsed(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"Expect: 100-continue\r\n\r\n")
    assert lane.protocol.url == b"/predict?a=1"
    assert (b"x-name", b"Value") in lane.protocol.headers, "headers are no longer pairs with names in lower case"
    assert lane.protocol.expect_100_continue is True


def test_on_message_begin_makes_the_scope_hold_the_list_of_headers(lane: Lane) -> None:
    lane.protocol.on_message_begin()
    assert lane.protocol.url == b""
    assert lane.protocol.expect_100_continue is False
    assert lane.protocol.headers == []
    assert lane.protocol.scope["headers"] is lane.protocol.headers
    assert lane.protocol.scope["state"] == {"key": "state"}


def test_on_headers_complete_starts_a_cycle_and_on_body_fills_it(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\n")
    cycle = lane.protocol.cycle
    assert isinstance(cycle, RequestResponseCycle)
    assert (cycle.response_started, cycle.response_complete, cycle.disconnected) == (False, False, False)
    assert cycle.keep_alive is True
    assert isinstance(cycle.message_event, asyncio.Event)
    lane.protocol.data_received(b"four")
    lane.run()
    assert lane.scopes[0]["path"] == "/predict"
    assert lane.bodies == [b"four"]


def test_on_response_complete_is_called_after_the_answer_and_counts_it(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\nfour")
    lane.finish()
    assert lane.protocol.cycle.response_complete
    assert lane.state.total_requests == 1
    assert lane.transport.sent == b"HTTP/1.1 200 OK\r\nserver: contract\r\ncontent-length: 2\r\n\r\nok"


def test_default_headers_are_written_as_they_are_when_the_cycle_is_made(lane: Lane) -> None:
    lane.state.default_headers = [(b"connection", b"close")]
    lane.protocol.data_received(HEAD + b"\r\nfour")
    lane.finish()
    assert b"connection: close\r\n" in lane.transport.sent
    assert lane.transport.closed


def test_a_cycle_writes_to_the_transport_that_it_has_when_it_answers(lane: Lane) -> None:
    class Outlet:
        """All that a cycle may use of a transport."""

        sent = b""
        closed = 0

        def write(self, data: bytes) -> None:
            self.sent += data

        def is_closing(self) -> bool:
            return False

        def close(self) -> None:
            self.closed += 1

    lane.protocol.data_received(HEAD + b"Connection: close\r\nExpect: 100-continue\r\n\r\n")
    outlet = lane.protocol.cycle.transport = Outlet()
    lane.run()
    assert outlet.sent == b"HTTP/1.1 100 Continue\r\n\r\n", "100 Continue is no longer written when a body is asked for"
    lane.protocol.data_received(b"four")
    lane.finish()
    assert outlet.sent.endswith(b"\r\n\r\nok")
    assert outlet.closed == 1, "keep_alive no longer decides whether the transport is closed after the answer"
    assert not lane.transport.sent


def test_a_cycle_does_not_keep_its_connection_alive_if_it_is_told_before_the_answer(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\nfour")
    lane.protocol.cycle.keep_alive = False
    lane.finish()
    assert b"connection: close\r\n" in lane.transport.sent
    assert lane.transport.closed


def test_connection_lost_by_an_error_ends_the_request_and_leaves_the_transport_open(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\n")
    lane.protocol.connection_lost(ConnectionAbortedError())
    assert lane.protocol.cycle.disconnected
    assert lane.protocol.cycle.message_event.is_set()
    assert not lane.transport.closed
    assert lane.protocol.parser is None


def test_pipeline_holds_pairs_of_cycle_and_application_oldest_last(lane: Lane) -> None:
    for _ in range(3):
        lane.protocol.data_received(HEAD + b"\r\nfour")
    waiting = list(lane.protocol.pipeline)
    assert [len(entry) for entry in waiting] == [2, 2], "pipeline no longer holds what _start_asgi_task takes"
    assert waiting[0][0] is lane.protocol.cycle, "the newest request is no longer first in the pipeline"
    assert lane.protocol.flow.read_paused
    assert not lane.transport.reading
    lane.finish()
    assert len(lane.scopes) == 3


def test_flow_tells_when_writing_is_paused(lane: Lane) -> None:
    assert lane.protocol.flow.write_paused is False
    lane.protocol.pause_writing()
    assert lane.protocol.flow.write_paused is True
    lane.protocol.resume_writing()


def test_shutdown_closes_an_idle_connection_and_ends_a_busy_one_after_its_answer(lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\nfour")
    lane.protocol.shutdown()
    assert not lane.transport.closed
    assert lane.protocol.cycle.keep_alive is False
    lane.finish()
    assert lane.transport.closed


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("startup", ["self", "sockets"]), ("on_tick", ["self", "counter"]), ("shutdown", ["self", "sockets"])],
)
def test_server_has_the_method_that_is_overridden(name: str, parameters: list[str]) -> None:
    method = getattr(Server, name, None)
    assert inspect.iscoroutinefunction(method), f"uvicorn.Server.{name} is gone or no longer a coroutine"
    assert list(inspect.signature(method).parameters) == parameters, f"uvicorn.Server.{name} has changed"


def test_server_has_the_state_that_is_read() -> None:
    server = Server(Config(lambda: None, log_config=None))
    assert isinstance(server.server_state, ServerState)


@pytest.mark.parametrize(
    ("name", "value"),
    [("get_method", b"POST"), ("get_http_version", "1.1"), ("should_keep_alive", True), ("should_upgrade", False)],
)
def test_parser_answers_once_the_head_is_parsed(name: str, value: object, lane: Lane) -> None:
    lane.protocol.data_received(HEAD + b"\r\n")
    assert getattr(lane.protocol.parser, name)() == value, f"HttpRequestParser.{name} has changed"


def test_parser_stops_at_an_upgrade_with_the_offset_of_the_rest() -> None:
    head = HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with pytest.raises(HttpParserUpgrade) as stop:
        HttpRequestParser(object()).feed_data(head + b"four")
    rest = (head + b"four")[stop.value.args[0] :]
    assert rest in {b"four", b""}, "HttpParserUpgrade no longer carries an offset behind the head"


def test_parser_turns_an_error_in_a_callback_into_its_own_error() -> None:
    class Refusing:
        def on_headers_complete(self) -> None:
            raise ValueError

    with pytest.raises(HttpParserError):
        HttpRequestParser(Refusing()).feed_data(HEAD + b"\r\n")


def test_parser_skips_data_after_a_request_that_ends_the_connection_only_if_it_is_lenient() -> None:
    data = 2 * (HEAD + b"Connection: close\r\n\r\nfour")
    with pytest.raises(HttpParserError):
        HttpRequestParser(object()).feed_data(data)
    lenient = HttpRequestParser(object())
    lenient.set_dangerous_leniencies(lenient_data_after_close=True)
    lenient.feed_data(data)
