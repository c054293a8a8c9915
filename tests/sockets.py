"""Applications behind our own protocol, in this process, and raw connections to them."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.web.exchange import AT_HEAD, AtHead
from service.web.protocol import Protocol
from service.web.server import Server, listen

Address = tuple[str, int]
BODY = b"some bytes"
HEAD = b"POST /asked HTTP/1.1\r\nHost: localhost\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)


async def _echo(request: Request) -> Response:
    return Response(b"got " + await request.body())


@contextmanager
def echoing(at_head: AtHead) -> Iterator[tuple[Address, Server]]:
    """As `listening`: an application that echoes at /asked, where it takes POST, and at /other, behind `at_head`."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, AtHead]]:
        yield {AT_HEAD: at_head}

    routes = [Route("/asked", _echo, methods=["POST"]), Route("/other", _echo)]
    with listening(Starlette(routes=routes, lifespan=lifespan)) as found:
        yield found


@contextmanager
def listening(app: ASGIApp) -> Iterator[tuple[Address, Server]]:
    """The address of a started server on a free port, and the server; it is stopped at the end."""
    server = Server(uvicorn.Config(app, http=Protocol, ws="none", log_config=None, timeout_graceful_shutdown=5))
    bound = listen("127.0.0.1", 0, shared=False)
    begun = threading.Event()

    async def serve() -> None:
        started = asyncio.create_task(server.serve(sockets=[bound]))
        while not (server.started or started.done()):  # noqa: ASYNC110 - uvicorn tells no other way
            await asyncio.sleep(0)
        begun.set()
        await started

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert begun.wait(60)
        yield bound.getsockname(), server
    finally:
        server.should_exit = True
        thread.join()


class Connection:
    """A client socket with a buffered reader."""

    def __init__(self, where: Address) -> None:
        self._socket = socket.create_connection(where, timeout=60)
        self.send = self._socket.sendall
        self.read = self._socket.makefile("rb")
        self.headers: dict[str, str] = {}

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.read.close()
        self._socket.close()

    def answer(self, *, bodiless: bool = False) -> tuple[int, bytes]:
        """Status and content of the next answer; its headers, their names in lower case, are in `headers`.

        `bodiless`: it answers HEAD, so its content-length counts no bytes that come.
        """
        status = int(self.read.readline().split()[1])
        lines = iter(self.read.readline, b"\r\n")
        self.headers = {name.lower(): value for name, value in (line.decode().strip().split(": ", 1) for line in lines)}
        return status, b"" if bodiless else self.read.read(int(self.headers.get("content-length", 0)))
