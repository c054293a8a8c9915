"""Connections that wait together are accepted together, so that their requests share a batch."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.applications import Starlette

from service.web.protocol import Protocol
from service.web.server import Server, listen

uvloop = pytest.importorskip("uvloop")
CONNECTIONS, TURNS = 12, 5


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_connections_that_wait_together_are_accepted_in_a_few_turns_of_the_event_loop() -> None:
    server = Server(uvicorn.Config(Starlette(), http=Protocol, ws="none", log_config=None, backlog=2048))
    bound = listen("127.0.0.1", 0, shared=False)

    async def go() -> int:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:  # noqa: ASYNC110 - uvicorn tells no other way
            await asyncio.sleep(0)
        where = bound.getsockname()
        clients = [socket.create_connection(where, timeout=60) for _ in range(CONNECTIONS)]  # the loop waits meanwhile
        await turns(TURNS)
        accepted = len(server.server_state.connections)
        for client in clients:
            client.close()
        server.stop()
        await serving
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where, timeout=60)
        return accepted

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(go()) == CONNECTIONS
