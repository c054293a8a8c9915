"""Run one web process: uvicorn's server with the application."""

import ctypes
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from service.execution.supervisor import BROKEN
from service.logs import configure_logging
from service.settings import Settings, from_environment
from service.web.server import Server, listen

_BACKLOG = 2048


_M_MMAP_THRESHOLD, _LARGE = -3, 1_048_576  # from <malloc.h>; bytes


def serve(settings: Settings, bound: socket.socket, shared: Path | None = None) -> bool:
    """Until SIGINT or SIGTERM. False where it could not start. See create_app for `shared`."""
    from service.app import create_app  # noqa: PLC0415 - the parent of several processes serves nothing itself

    config = uvicorn.Config(
        create_app(settings, shared=shared),
        http="service.web.protocol:Protocol",  # by name: what it imports is for web processes only
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
