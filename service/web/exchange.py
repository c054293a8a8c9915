"""Types between the server's protocol and the application: requests that are answered without a task, and refusals."""

import asyncio
import typing
from collections.abc import Callable, Mapping, MutableSet, Sequence
from dataclasses import dataclass

from starlette.responses import Response

AT_HEAD = "at_head"
AT_REFUSAL = "at_refusal"
REFUSED = "refused"
LOADS = "loads"
LEAVING = "leaving"

Headers = Sequence[tuple[bytes, bytes]]
Reply = tuple[int, Headers, bytes]  # status, headers, body
Respond = Callable[[Reply], None]


def reply_of(response: Response) -> Reply:
    """Return status, headers and body of a complete response."""
    return response.status_code, response.raw_headers, bytes(response.body)


def response_of(reply: Reply) -> Response:
    """Return a complete response with the headers of a reply: the inverse of `reply_of`."""
    status, headers, body = reply
    response = Response(body, status)
    response.raw_headers = list(headers)
    return response


class Exchange(typing.Protocol):
    """A request that is answered without a task."""

    def begin(self, body: bytes, respond: Respond) -> bool:
        """Take the complete body; call `respond` once, now or later. Return False to run the application instead."""
        ...

    def abandon(self) -> None:
        """Stop: the client has disconnected, and `respond` need not be called."""
        ...


class Loads(typing.Protocol):
    """The models that the application goes on loading after its start."""

    @property
    def loading(self) -> Sequence[str]:
        """Return their names."""
        ...

    async def settled(self) -> None:
        """Wait until these loads have ended."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A refusal that depends on nothing but the head of the request, and on `again`.

    `again` returns whether another request with the same head is refused, too, and counts it if so.
    """

    response: Response
    again: Callable[[], bool]


Leaving = Callable[[], None]  # called when the server begins to stop
AtHead = Callable[[bytes, bytes, Headers], Refusal | Exchange | None]  # method, target and headers of a request
Refused = MutableSet[int]  # numbers of connections
AtRefusal = Callable[[Headers], Mapping[str, str]]  # headers of a request, as far as they are read


class Direct:
    """Replaces uvicorn's request-response cycle for a fast-path request; has the attributes that uvicorn reads."""

    __slots__ = ("disconnected", "exchange", "keep_alive", "pieces", "response_complete")
    response_started = False
    message_event = asyncio.Event()  # never waited for

    def __init__(self, exchange: Exchange, *, keep_alive: bool) -> None:
        self.exchange = exchange
        self.pieces: list[bytes] = []  # of the body
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
