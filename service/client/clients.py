"""Client and AsyncClient: execute the calls of calls.py with httpx.

    client.predict("mnist", "digit.png")          answers.Predictions
    await aclient.predict("mnist", "digit.png")   the same

The two differ only in how they send, wait and read streams, see streams.py.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from typing import Any, Self, TypeVar

import httpx

from service.client import connection
from service.client.answers import Job, Promote
from service.client.arguments import checked, required
from service.client.call import Asking, Call, require_call
from service.client.connection import Service
from service.client.datasets import AsyncDatasets, Datasets
from service.client.events import Retries
from service.client.sending import request
from service.client.show import bar
from service.client.streams import AsyncStreams, Streams

T = TypeVar("T")
URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
Wait = Callable[[float], Any]


def _read(service: Service, call: Call[T], response: httpx.Response) -> T:
    if response.is_error:
        raise service.refusal(response)
    if not response.is_success:
        raise service.not_torchloop(response)
    try:
        return call.read(response)
    except (ValueError, LookupError, TypeError, RecursionError) as err:
        raise service.not_torchloop(response) from err


class Client(Streams):
    """A synchronous client. Use it in a `with` block, or close it.

    `retries`: how often an idempotent call is retried, if the service asks for it or a connection broke.
    `timeout_s`: how long to wait for an answer; None: without limit.
    `transport`, `wait`: replace the network and time.sleep.
    Proxies of the environment (HTTP_PROXY, ALL_PROXY, NO_PROXY, ...) are used, but not for loopback addresses.
    `datasets` has the calls of datasets, see datasets.py.
    Every call raises TorchloopError; see errors.py. So does the constructor, for a URL or key that cannot be used.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        self._service = connection.address(url, proxies=transport is None)
        self._http = connection.opened(httpx.Client, self._service, key, timeout_s, transport)
        self._retries = required("retries", retries, int)
        self._wait = required("wait", wait, Callable)
        self.datasets = Datasets(self.execute, self.follow, wait, retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def execute(self, call: Call[T] | Asking[T]) -> T:
        """Execute a call. Raises BadArgument for anything else."""
        if isinstance(call, Asking):
            call = call.then(self.execute(call.first))
        require_call(call)
        retries = Retries(repeatable=call.repeatable, most=self._retries)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = self._sent(call)
            except httpx.RequestError as err:
                outcome = err
            pause_s = retries.after(outcome)
            if pause_s is not None:
                self._wait(pause_s)
            elif isinstance(outcome, httpx.Response):
                return _read(self._service, call, outcome)
            else:
                raise self._service.unreachable(outcome) from outcome

    def _sent(self, call: Call[T]) -> httpx.Response:
        sent = request(self._http, call)
        if call.target is None:
            return self._http.send(sent)
        with closing(self._http.send(sent, stream=True)) as response:
            if call.target.takes(response):
                with call.target.path.open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            else:
                response.read()
        return response

    @checked
    def train(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        *,
        promote: Promote = "if_better",
        dataset: str | None = None,
        tensorboard: bool = False,
        resources: Mapping[str, float] | None = None,
        feedback: Mapping[str, Any] | None = None,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """Queue a job; with `wait`, return the finished job, and with `progress`, show a progress bar meanwhile."""
        job = self.submit(
            model,
            config,
            promote=promote,
            dataset=dataset,
            tensorboard=tensorboard,
            resources=resources,
            feedback=feedback,
        )
        if not wait:
            return job
        with bar(progress) as show:
            return self.follow(job["id"], show)


class AsyncClient(AsyncStreams):
    """As Client, with awaitable methods and `async for event in client.events(...)`."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float | None = TIMEOUT_S,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._service = connection.address(url, proxies=transport is None)
        self._http = connection.opened(httpx.AsyncClient, self._service, key, timeout_s, transport)
        self._retries = required("retries", retries, int)
        self._wait = required("wait", wait, Callable)
        self.datasets = AsyncDatasets(self.execute, self.follow, wait, retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def execute(self, call: Call[T] | Asking[T]) -> T:
        """Execute a call. Raises BadArgument for anything else."""
        if isinstance(call, Asking):
            call = call.then(await self.execute(call.first))
        require_call(call)
        retries = Retries(repeatable=call.repeatable, most=self._retries)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = await self._sent(call)
            except httpx.RequestError as err:
                outcome = err
            pause_s = retries.after(outcome)
            if pause_s is not None:
                await self._wait(pause_s)
            elif isinstance(outcome, httpx.Response):
                return _read(self._service, call, outcome)
            else:
                raise self._service.unreachable(outcome) from outcome

    async def _sent(self, call: Call[T]) -> httpx.Response:
        sent = request(self._http, call)
        if call.target is None:
            return await self._http.send(sent)
        response = await self._http.send(sent, stream=True)
        try:
            if call.target.takes(response):
                with call.target.path.open("wb") as file:
                    async for piece in response.aiter_bytes():
                        file.write(piece)
            else:
                await response.aread()
        finally:
            await response.aclose()
        return response

    @checked
    async def train(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        *,
        promote: Promote = "if_better",
        dataset: str | None = None,
        tensorboard: bool = False,
        resources: Mapping[str, float] | None = None,
        feedback: Mapping[str, Any] | None = None,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """As Client.train."""
        job = await self.submit(
            model,
            config,
            promote=promote,
            dataset=dataset,
            tensorboard=tensorboard,
            resources=resources,
            feedback=feedback,
        )
        if not wait:
            return job
        with bar(progress) as show:
            return await self.follow(job["id"], show)
