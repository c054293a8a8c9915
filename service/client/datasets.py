"""Datasets of your own: `client.datasets.upload("mnist", "digits", "digits.zip")`, and calls of dataset versions."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import closing
from typing import Any, TypeVar

from service.client import dataset_calls
from service.client.answers import Job
from service.client.call import Following, Step, Steps
from service.client.errors import TorchloopError
from service.client.method import Asynchronous, Synchronous, method

T = TypeVar("T")


class _Calls:
    list = method(dataset_calls.datasets)
    get = method(dataset_calls.dataset)
    report = method(dataset_calls.report)
    delete = method(dataset_calls.delete)
    state = method(dataset_calls.state)
    upload = method(dataset_calls.upload)


class Datasets(_Calls, Synchronous):
    """The calls of datasets, of a Client."""

    def __init__(
        self, execute: Callable[[Any], Any], follow: Callable[..., Job], wait: Callable[[float], Any], retries: int
    ) -> None:
        self._execute = execute
        self._follow = follow
        self._wait = wait
        self._retries = retries

    def execute(self, call: Any) -> Any:
        """Execute a call, or take its steps."""
        if isinstance(call, Steps):
            return _at_once(_taken(call.begin(self._retries), self._take))
        return self._execute(call)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Following):
            return self._follow(step.job, step.show)
        if isinstance(step, float):
            return self._wait(step)
        return step() if callable(step) else self._execute(step)


class AsyncDatasets(_Calls, Asynchronous):
    """The calls of datasets, of an AsyncClient: as those of Datasets, and awaitable."""

    def __init__(
        self,
        execute: Callable[[Any], Awaitable[Any]],
        follow: Callable[..., Awaitable[Job]],
        wait: Callable[[float], Awaitable[Any]],
        retries: int,
    ) -> None:
        self._execute = execute
        self._follow = follow
        self._wait = wait
        self._retries = retries

    async def execute(self, call: Any) -> Any:
        """Execute a call, or take its steps."""
        if isinstance(call, Steps):
            return await _taken(call.begin(self._retries), self._take)
        return await self._execute(call)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Following):
            return await self._follow(step.job, step.show)
        if isinstance(step, float):
            return await self._wait(step)
        return await (asyncio.to_thread(step) if callable(step) else self._execute(step))


async def _taken(steps: Generator[Step, Any, T], take: Callable[[Step], Awaitable[Any]]) -> T:
    """Take steps to their end, and return the result. Of a synchronous client, nothing here waits."""
    answer: Any = None
    error: TorchloopError | None = None
    with closing(steps):
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = error = None
            try:
                answer = await take(step)
            except TorchloopError as err:
                error = err


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, and so needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a step of a synchronous client waited for an event loop")
