"""Threads of their own for calls that may take long and cannot be interrupted."""

import asyncio
import threading

import pytest

from service.execution.threads import in_own_thread, left_running
from tests.waiting import until


def test_a_call_in_a_thread_of_its_own_gives_its_result_or_its_error() -> None:
    async def go() -> int:
        with pytest.raises(ZeroDivisionError):
            await in_own_thread(lambda: 1 // 0)
        return await in_own_thread(lambda: 3)

    assert asyncio.run(go()) == 3


def test_the_end_of_the_event_loop_does_not_wait_for_a_call() -> None:
    begun, opened = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert opened.wait(60)

    async def go() -> None:
        task = asyncio.create_task(in_own_thread(call))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())
    assert left_running()
    opened.set()
    until(lambda: not left_running())
