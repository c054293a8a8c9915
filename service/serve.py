"""Run one web process: uvicorn's server with the application."""

if __name__ == "__main__":  # the imports below take time
    from models.signals import exit_at_signals

    exit_at_signals(0)

import asyncio
import ctypes
import logging
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn

from models.garbage import not_collected
from models.signals import ignore_signals
from service.execution.stop import Stop
from service.execution.supervisor import BROKEN, beat
from service.execution.threads import left_running
from service.logs import configure_logging, log_uncaught
from service.settings import Settings, from_environment
from service.web.server import Server, listen, reachable

log = logging.getLogger(__name__)
_BACKLOG = 2048
_LOAD_WAIT_S = 3.0  # then the service listens, and goes on loading
_LAST_RESORT_S = 15.0  # after the deadline of the requests in progress


_M_MMAP_THRESHOLD, _LARGE = -3, 1_048_576  # from <malloc.h>; bytes
_M_ARENA_MAX, _ARENAS = -8, 2


def serve(
    settings: Settings,
    bound: socket.socket,
    stop: Stop,
    leave: Callable[[], None],
    shared: Path | None = None,
    heartbeat: int | None = None,
) -> bool:
    """Serve until the stop is requested. Returns False if it could not start.

    `leave` ends the process: for a stop while the application starts, when it has no connections, and after a stop
    while it loads networks. The threads that do so cannot be interrupted.
    `shared` is that of create_app, `heartbeat` the descriptor that the event loop writes to.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy keeps 6 MB for each more, and computes little here
    with not_collected():  # a seventh of the time of the imports
        from service.app import create_app  # noqa: PLC0415 - the parent of several processes serves nothing itself

        address = reachable(bound, settings.address)
        app = create_app(settings, shared=shared, load_wait_s=_LOAD_WAIT_S, address=address)
    config = uvicorn.Config(
        app,
        http="service.web.protocol:Protocol",  # by name, since its imports are for web processes only
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,  # service.web.prefix checks the address of the connection
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=int(settings.request_timeout_s) + 1,
    )
    _keep_little_memory()
    server = Server(config, shared, settings.web_processes)

    def begin_to_stop() -> None:
        server.stop()
        if not server.started:
            log.info("stopped while it was starting")
            leave()

    async def run() -> None:
        stop.watched_by(asyncio.get_running_loop(), begin_to_stop)
        beating = None if heartbeat is None else asyncio.create_task(beat(heartbeat))
        await server.serve(sockets=[bound])
        if beating is not None:
            beating.cancel()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
    if server.started and left_running():
        log.info("stopped while it was loading models")
        leave()
    return server.started


def _keep_little_memory() -> None:
    """Have glibc map each large block by itself, so that what one large body took is free when it is done, and share
    two arenas among all threads.

    Otherwise it keeps such blocks from the second one on, up to 32 MB each, and 6 MB in an arena for each thread.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # on Linux
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, _ARENAS)


def main() -> int:
    """Run one of several web processes. Returns the exit status."""
    stop = Stop()
    stop.at_signals()
    settings = from_environment(os.environ)
    configure_logging(settings.log_format)
    log_uncaught()
    stop.exit_after(settings.request_timeout_s + _LAST_RESORT_S)
    stop.at_end_of_input()
    port, shared, heartbeat = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    os.set_inheritable(heartbeat, False)
    served = serve(settings, listen(settings.host, port, shared=True), stop, partial(os._exit, 0), shared, heartbeat)
    ignore_signals()
    return 0 if served else BROKEN


if __name__ == "__main__":
    sys.exit(main())
