"""One web process: uvicorn's server on a port of its own or one that several share.

`python -m service.serve PORT FOLDER` is one of several: it shares PORT and FOLDER with the others and ends when its
input does.
"""

import asyncio
import contextlib
import gc
import logging
import socket
from typing import Any

import uvicorn

log = logging.getLogger(__name__)
_LINGER_S = 2.0  # how long a stopping server waits for a next request on connections that are open and idle
_POLL_S = 0.02


class Server(uvicorn.Server):
    """Says where it listens, and loses no request when it stops.

    A client that sends its next request just when an idle connection is closed gets an error for it. So a stopping
    server first answers, for a while, with `Connection: close`; then it closes what is still idle.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; what was made until now is here to stay, so the garbage collector need not look at it again."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        log.info("running on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, ten times a second; clients that are too slow are given up once a second."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            connections: set[Any] = self.server_state.connections  # of service.protocol
            for connection in list(connections):
                connection.check(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop taking connections, answer what is under way and what comes in on those that are open, then end."""
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
                while state.connections:  # noqa: ASYNC110 - uvicorn tells of no connection that ends
                    await asyncio.sleep(_POLL_S)
        await super().shutdown(sockets)


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to host and port; `shared` with other processes, among which the kernel spreads connections.

    Raises OSError where the port is taken by somebody else.
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
