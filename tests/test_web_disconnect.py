"""Work for a client that has disconnected is cancelled."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from service.web.disconnect import unless_gone
from tests import clock


def connection(gone_at: float) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A `receive` that reports an empty piece, and later a disconnect."""
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        message = messages.pop(0)
        if message["type"] == "http.disconnect":
            await asyncio.sleep(gone_at)
        return message

    return receive


async def seconds(count: float, ended: list[float]) -> str:
    try:
        await asyncio.sleep(count)
        return "done"
    finally:
        ended.append(clock.now())


@pytest.mark.parametrize("count", [0.01, 5])
def test_work_of_a_client_that_stays_is_done(count: float) -> None:
    assert clock.run(unless_gone(connection(1000), seconds(count, []))) == "done"


def test_work_of_a_client_that_goes_is_cancelled() -> None:
    ended: list[float] = []

    async def go() -> None:
        with pytest.raises(ClientDisconnect):
            await unless_gone(connection(1), seconds(1000, ended))
        await asyncio.sleep(0)

    clock.run(go())
    assert ended == [pytest.approx(1.05)]


def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        await asyncio.sleep(2)
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        clock.run(unless_gone(connection(1000), fail()))


def test_a_cancelled_request_cancels_its_work() -> None:
    ended: list[float] = []

    async def go() -> None:
        task = asyncio.create_task(unless_gone(connection(1000), seconds(1000, ended)))
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)

    clock.run(go())
    assert ended == [3]


def test_an_error_keeps_nothing_alive_until_the_garbage_is_collected() -> None:
    class Body:
        """One that may have 16 MB."""

    async def refuse(body: Body) -> None:
        raise ValueError("malformed", id(body))

    async def answer(body: Body) -> None:
        with contextlib.suppress(ValueError):
            await unless_gone(connection(1000), refuse(body))

    body = Body()
    kept = weakref.ref(body)
    gc.disable()
    try:
        clock.run(answer(body))
        del body
        assert kept() is None
    finally:
        gc.enable()
