"""Client and AsyncClient: execute the calls of calls.py with httpx.

    client.predict("mnist", "digit.png")          answers.Predictions
    await aclient.predict("mnist", "digit.png")   the same

The two differ only in how they send, wait and read streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Self, TypeVar

import httpx

from service.client import calls, connection
from service.client.answers import FINAL, Job, Promote
from service.client.call import Asking, Call
from service.client.connection import Service
from service.client.datasets import AsyncDatasets, Datasets
from service.client.errors import BadArgument, TorchloopError, first_line
from service.client.events import Event, Feed, Retries
from service.client.method import Asynchronous, Synchronous, method
from service.client.show import Show, bar

T = TypeVar("T")
URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
_SILENCE_S = 45.0  # the service sends a comment on a stream every 15 seconds
Wait = Callable[[float], Any]


class _Calls:
    predict = method(calls.predict)
    predict_picture = method(calls.predict_picture)
    predict_arrays = method(calls.predict_arrays)
    explain = method(calls.explain)
    submit = method(calls.submit)
    job = method(calls.job)
    jobs = method(calls.jobs)
    cancel = method(calls.cancel)
    job_history = method(calls.job_history)
    plot = method(calls.plot)
    models = method(calls.models)
    model = method(calls.model)
    example = method(calls.example)
    versions = method(calls.versions)
    version = method(calls.version)
    register = method(calls.register)
    download = method(calls.download)
    save = method(calls.save)
    promote = method(calls.promote)
    rollback = method(calls.rollback)
    promotions = method(calls.promotions)
    nodes = method(calls.nodes)
    ready = method(calls.ready)


def _request(
    http: httpx.Client | httpx.AsyncClient, call: Call[Any], timeout: httpx.Timeout | None = None
) -> httpx.Request:
    if http.is_closed:
        raise TorchloopError("the client is closed: make the call inside its `with` block, or create another client")
    if timeout is None and call.timeout_s is not None:
        timeout = connection.timeout(call.timeout_s)
    own: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    try:
        request = http.build_request(call.method, call.path, **call.arguments, **own)
    except (httpx.InvalidURL, ValueError, TypeError) as err:
        raise BadArgument(f"the arguments of this call cannot be sent ({first_line(err)})") from err
    if call.stream is None:
        return request
    return httpx.Request(
        request.method, request.url, headers=request.headers, stream=call.stream, extensions=request.extensions
    )


def _read(service: Service, call: Call[T], response: httpx.Response) -> T:
    if response.is_error:
        raise service.refusal(response)
    if not response.is_success:
        raise service.not_torchloop(response)
    try:
        return call.read(response)
    except (ValueError, LookupError, TypeError, RecursionError) as err:
        raise service.not_torchloop(response) from err


def _stream(http: httpx.Client | httpx.AsyncClient, job_id: str, feed: Feed) -> httpx.Request:
    return _request(http, calls.stream(job_id, feed.headers()), httpx.Timeout(10, read=_SILENCE_S))


def _no_stream(service: Service, response: httpx.Response) -> TorchloopError:
    """Return the error for a response that is not an event stream. Its content must have been read."""
    return service.refusal(response) if response.is_error else service.not_torchloop(response)


def _is_stream(response: httpx.Response) -> bool:
    """Return whether a response is an event stream; 204 is the stream of a job that has ended."""
    kind = response.headers.get("content-type", "text/event-stream")
    return response.status_code == 204 or (response.is_success and kind.startswith("text/event-stream"))


class Client(_Calls, Synchronous):
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
        self._retries = retries
        self._wait = wait
        self.datasets = Datasets(self.execute, self.follow, wait, retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def execute(self, call: Call[T] | Asking[T]) -> T:
        """Execute a call."""
        if isinstance(call, Asking):
            call = call.then(self.execute(call.first))
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
        request = _request(self._http, call)
        if call.target is None:
            return self._http.send(request)
        with closing(self._http.send(request, stream=True)) as response:
            if call.target.takes(response):
                with call.target.path.open("wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            else:
                response.read()
        return response

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yield the events of a job, from the first one after `after` to its end; reconnects if necessary."""
        feed = Feed(after)
        while not feed.over:
            failure: TorchloopError | None = None
            try:
                yield from self._connected(job_id, feed)
                if feed.over or self.job(job_id)["state"] in FINAL:
                    return
            except TorchloopError as err:
                failure = err
            self._wait(feed.pause_s(failure))

    def _connected(self, job_id: str, feed: Feed) -> Iterator[Event]:
        """Yield the events of one connection."""
        try:
            response = self._http.send(_stream(self._http, job_id, feed), stream=True)
            try:
                if not _is_stream(response):
                    response.read()
                    raise _no_stream(self._service, response)
                for line in response.iter_lines():
                    if event := feed.take(line):
                        yield event
            finally:
                response.close()
        except httpx.RequestError as err:
            raise self._service.unreachable(err) from err

    def follow(self, job_id: str, show: Show | None = None) -> Job:
        """Wait for a job and return it, whatever its final state; `show` is called with each event."""
        for event in self.events(job_id):
            if show:
                show(event)
        return self.job(job_id)

    def train(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        *,
        promote: Promote = "if_better",
        dataset: str | None = None,
        tensorboard: bool = False,
        resources: Mapping[str, float] | None = None,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """Queue a job; with `wait`, return the finished job, and with `progress`, show a progress bar meanwhile."""
        job = self.submit(model, config, promote=promote, dataset=dataset, tensorboard=tensorboard, resources=resources)
        if not wait:
            return job
        with bar(progress) as show:
            return self.follow(job["id"], show)


class AsyncClient(_Calls, Asynchronous):
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
        self._retries = retries
        self._wait = wait
        self.datasets = AsyncDatasets(self.execute, self.follow, wait, retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def execute(self, call: Call[T] | Asking[T]) -> T:
        """Execute a call."""
        if isinstance(call, Asking):
            call = call.then(await self.execute(call.first))
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
        request = _request(self._http, call)
        if call.target is None:
            return await self._http.send(request)
        response = await self._http.send(request, stream=True)
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

    async def events(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """As Client.events."""
        feed = Feed(after)
        while not feed.over:
            failure: TorchloopError | None = None
            try:
                async for event in self._connected(job_id, feed):
                    yield event
                if feed.over or (await self.job(job_id))["state"] in FINAL:
                    return
            except TorchloopError as err:
                failure = err
            await self._wait(feed.pause_s(failure))

    async def _connected(self, job_id: str, feed: Feed) -> AsyncIterator[Event]:
        """Yield the events of one connection."""
        try:
            response = await self._http.send(_stream(self._http, job_id, feed), stream=True)
            try:
                if not _is_stream(response):
                    await response.aread()
                    raise _no_stream(self._service, response)
                async for line in response.aiter_lines():
                    if event := feed.take(line):
                        yield event
            finally:
                await response.aclose()
        except httpx.RequestError as err:
            raise self._service.unreachable(err) from err

    async def follow(self, job_id: str, show: Show | None = None) -> Job:
        """As Client.follow."""
        async for event in self.events(job_id):
            if show:
                show(event)
        return await self.job(job_id)

    async def train(
        self,
        model: str,
        config: Mapping[str, Any] | None = None,
        *,
        promote: Promote = "if_better",
        dataset: str | None = None,
        tensorboard: bool = False,
        resources: Mapping[str, float] | None = None,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """As Client.train."""
        job = await self.submit(
            model, config, promote=promote, dataset=dataset, tensorboard=tensorboard, resources=resources
        )
        if not wait:
            return job
        with bar(progress) as show:
            return await self.follow(job["id"], show)
