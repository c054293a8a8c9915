"""Types between the server's protocol and the application: requests that are answered without a task, and refusals."""

import asyncio
import typing
from collections.abc import Callable, Mapping, Sequence

from starlette.responses import Response

AT_HEAD = "at_head"
AT_REFUSAL = "at_refusal"
LOADS = "loads"
LEAVING = "leaving"

Headers = Sequence[tuple[bytes, bytes]]
Reply = tuple[int, Headers, bytes]  # status, headers, body
Respond = Callable[[Reply], None]


def reply_of(response: Response) -> Reply:
    """Return status, headers and body of a complete response."""
    return response.status_code, response.raw_headers, bytes(response.body)


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


Leaving = Callable[[], None]  # called when the server begins to stop
AtHead = Callable[[bytes, bytes, Headers], Response | Exchange | None]  # method, target and headers of a request
AtRefusal = Callable[[Headers], Mapping[str, str]]  # headers of a request, as far as they are read


class Direct:
    """Replaces uvicorn's request-response cycle for a fast-path request; has the attributes that uvicorn reads."""

    __slots__ = ("disconnected", "exchange", "keep_alive", "pieces", "response_complete")
    response_started = False
    message_event = asyncio.Event()  # never waited for

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.pieces: list[bytes] = []  # of the body
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False
