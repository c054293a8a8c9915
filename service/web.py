"""One web process: uvicorn's server on a port of its own or one that several share.

`python -m service.web PORT FOLDER` is one of several: it shares PORT and FOLDER with the others and ends when its
input does.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn

from service.config import Settings, configure_logging, from_environment
from service.kept import BROKEN

log = logging.getLogger(__name__)
_BACKLOG = 2048
_LINGER_S = 2.0  # how long a stopping server waits for a next request on connections that are open and idle
_POLL_S = 0.02
_M_MMAP_THRESHOLD, _LARGE = -3, 1_048_576  # from <malloc.h>; bytes


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


def serve(settings: Settings, bound: socket.socket, shared: Path | None = None) -> bool:
    """Until SIGINT or SIGTERM. False where it could not start. See create_app for `shared`."""
    from service.app import create_app  # noqa: PLC0415 - the parent of several processes serves nothing itself

    config = uvicorn.Config(
        create_app(settings, shared=shared),
        http="service.protocol:Protocol",  # by name: what it imports is for web processes only
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,  # nothing here asks who called
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(settings.request_timeout_s) + 1,
    )
    _give_back_large_blocks()
    server = Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again after it has stopped in good order
        signal.signal(number, server.handle_exit)
    server.run(sockets=[bound])
    return server.started


def _give_back_large_blocks() -> None:
    """Have glibc map each large block by itself, so that what one large body took is free when it is done.

    Otherwise it keeps such blocks from the second one on, up to 32 MB each.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # on Linux
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def main() -> int:
    """One of several web processes. Returns the exit status."""
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    port, shared = int(sys.argv[1]), Path(sys.argv[2])
    return 0 if serve(settings, listen(settings.host, port, shared=True), shared) else BROKEN


def _stop_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
