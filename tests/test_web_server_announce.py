"""The line with the address: logged when the models are loaded, once for all processes that share a folder."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.web.exchange import LOADS
from service.web.server import Server, listen


class Models:
    """Models that are being loaded until `over` is set."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.over = asyncio.Event()

    @property
    def loading(self) -> Sequence[str]:
        return () if self.over.is_set() else self.names

    async def settled(self) -> None:
        if self.names:
            await self.over.wait()


def server(models: Models, shared: Path | None = None, processes: int = 1) -> Server:
    """A server of an application that loads these models."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][LOADS] = models
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    return Server(uvicorn.Config(application, lifespan="on", log_config=None), shared, processes)


async def start(*servers: Server) -> None:
    """Let each listen on a port of its own."""
    for one in servers:
        one.config.load()
        one.lifespan = one.config.lifespan_class(one.config)
        await one.startup([listen("127.0.0.1", 0, shared=False)])
    await turns()


async def turns() -> None:
    """Let the tasks run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def stop(*servers: Server) -> None:
    for one in servers:
        await one.shutdown()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The first words of the lines with the address."""
    messages = [record.getMessage() for record in caplog.records if record.name == "service.web.server"]
    return [message.partition(" http")[0] for message in messages]


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_address_is_logged_at_once_if_everything_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        one = server(Models())
        await start(one)
        assert lines(caplog) == ["running on"]
        await stop(one)

    asyncio.run(go())


def test_models_that_are_still_being_loaded_are_named_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        models = Models("b", "a")
        one = server(models)
        await start(one)
        assert lines(caplog) == ["listening on"]
        assert ", still loading a, b (" in caplog.text
        models.over.set()
        await turns()
        assert lines(caplog) == ["listening on", "running on"]
        await stop(one)

    asyncio.run(go())


def test_the_last_of_several_processes_logs_the_address(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def go() -> None:
        fast, slow = Models(), Models("a")
        servers = [server(fast, tmp_path, 2), server(slow, tmp_path, 2)]
        monkeypatch.setattr("os.getpid", lambda: 1)
        await start(servers[0])
        assert lines(caplog) == []
        monkeypatch.setattr("os.getpid", lambda: 2)
        await start(servers[1])
        assert lines(caplog) == ["listening on"]
        slow.over.set()
        await turns()
        assert lines(caplog) == ["listening on", "running on"]
        monkeypatch.setattr("os.getpid", lambda: 3)  # one that was started again
        third = server(Models(), tmp_path, 2)
        await start(third)
        assert lines(caplog) == ["listening on", "running on"]
        await stop(*servers, third)

    asyncio.run(go())


def test_a_stop_while_models_are_being_loaded_logs_no_address(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        models = Models("a")
        one = server(models)
        await start(one)
        await stop(one)
        models.over.set()
        await turns()
        assert lines(caplog) == ["listening on"]

    asyncio.run(go())
