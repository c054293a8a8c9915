"""Applications behind our own protocol, in this process, and raw connections to them."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.protocol import Protocol
from service.web import Server, listen

Address = tuple[str, int]


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
    """A socket and what is read from it."""

    def __init__(self, where: Address) -> None:
        self._socket = socket.create_connection(where, timeout=60)
        self.send = self._socket.sendall
        self.read = self._socket.makefile("rb")
        self.headers: dict[str, str] = {}

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.read.close()
        self._socket.close()

    def answer(self) -> tuple[int, bytes]:
        """Status and content of the next answer; its headers, their names in lower case, are in `headers`."""
        status = int(self.read.readline().split()[1])
        lines = iter(self.read.readline, b"\r\n")
        self.headers = {name.lower(): value for name, value in (line.decode().strip().split(": ", 1) for line in lines)}
        return status, self.read.read(int(self.headers.get("content-length", 0)))
