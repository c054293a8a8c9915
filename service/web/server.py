"""The HTTP server of one web process: uvicorn's server with graceful shutdown, on a private or a shared port."""

import asyncio
import contextlib
import gc
import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from service.web.exchange import LEAVING, LOADS, Leaving, Loads

log = logging.getLogger(__name__)
_LINGER_S = 2.0  # how long a stopping server answers requests on open connections
_POLL_S = 0.02
_ACCEPTED_AT_ONCE = 16  # connections in one turn of the event loop
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # addresses for documentation


class Server(uvicorn.Server):
    """Logs its address when the models are loaded, and loses no request when it stops.

    Of `processes` processes that share the folder `shared`, the last one logs the address, for all of them. If models
    are still being loaded when it begins to listen, another line says so.

    A client that sends a request just when its idle connection is closed gets an error. So a stopping server first
    answers with `Connection: close` for a while, and then closes the connections that are still idle.
    """

    def __init__(self, config: uvicorn.Config, shared: Path | None = None, processes: int = 1) -> None:
        super().__init__(config)
        self._shared = shared
        self._processes = processes
        self._announcing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does; then exclude all objects made so far from garbage collection."""
        assert sockets
        await super().startup(_repeated(sockets))
        gc.collect()
        gc.freeze()
        host, port = sockets[0].getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._announcing = asyncio.create_task(self._announce(url))

    async def _announce(self, url: str) -> None:
        loads: Loads | None = self.lifespan.state.get(LOADS)
        if loads is not None and loads.loading:
            if self._shared is None or _is_first(self._shared, "listening"):
                names = ", ".join(sorted(loads.loading))
                log.info("listening on %s, still loading %s (%s/health/ready has the state)", url, names, url)
            await loads.settled()
        if self._shared is None or _is_last(self._shared, self._processes):
            log.info("running on %s (open it in a browser; API documentation: %s/docs; stop with Ctrl-C)", url, url)

    def stop(self) -> None:
        """Begin the graceful shutdown."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's own handlers: uvicorn's would drop requests at a second SIGINT."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Run ten times a second as in uvicorn; once a second, close connections of slow clients."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            connections: set[Any] = self.server_state.connections  # instances of web.protocol.Protocol
            for connection in list(connections):
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer the requests in progress and those that arrive on open connections, then end."""
        if self._announcing is not None:
            self._announcing.cancel()
        leaving: Leaving | None = self.lifespan.state.get(LEAVING)
        if leaving is not None:
            leaving()
        for server in self.servers:
            server.close()
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        for connection in list(state.connections):
            cycle: Any = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while state.connections:  # noqa: ASYNC110 - uvicorn has no event for closed connections
                    await asyncio.sleep(_POLL_S)
        await super().shutdown(sockets)


def _repeated(sockets: Sequence[socket.socket]) -> list[socket.socket]:
    """Return each listening socket as often as connections are to be accepted in one turn of the event loop.

    libuv accepts one for each handle and turn. Requests on new connections would then be computed one by one, each at
    three times its share of a batch. asyncio's own loops accept all that wait.
    """
    if not type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        return list(sockets)
    return [*sockets, *(one.dup() for one in sockets for _ in range(_ACCEPTED_AT_ONCE - 1))]


def _is_last(folder: Path, processes: int) -> bool:
    """Whether this process completes the number of processes that share the folder and have asked; for one of them."""
    (folder / f"{os.getpid()}.started").touch()
    return len(list(folder.glob("*.started"))) >= processes and _is_first(folder, "running")


def _is_first(folder: Path, question: str) -> bool:
    """Whether this process is the first of those that share the folder to ask this."""
    try:
        (folder / f"{question}.announced").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reachable(bound: socket.socket, given: str = "") -> str:
    """Return HOST:PORT at which other machines reach a socket: `given`, with the port of the socket if it has none.

    By default it is where the socket listens; if that is on all addresses, the machine's own towards its gateway.
    """
    host, port = bound.getsockname()[:2]
    if given:
        return given if re.search(r":\d+$", given) and not given.endswith("]") else f"{given}:{port}"
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = _own_address(socket.AddressFamily(bound.family))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_address(family: socket.AddressFamily) -> str:
    """Return the address from which this machine would send to others; its name if it has no network."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ELSEWHERE[family], 9))  # sends nothing
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a socket bound to host and port. With `shared`, the kernel spreads connections over several processes.

    Raises OSError if the port is in use.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
