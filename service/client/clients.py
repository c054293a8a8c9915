"""Client and AsyncClient: execute the calls of calls.py with httpx.

    client.predict("mnist", "digit.png")          answers.Predictions
    await aclient.predict("mnist", "digit.png")   the same

The two differ only in how they send, wait and read streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from service.client import calls
from service.client.answers import FINAL, Job, Policy
from service.client.calls import Call
from service.client.errors import TorchloopError, Unreachable, refusal
from service.client.events import Event, Feed, Retries
from service.client.show import Show, bar

P = ParamSpec("P")
T = TypeVar("T")
URL = "http://127.0.0.1:8000"
_SILENCE_S = 45.0  # the service sends a comment on a stream every 15 seconds
Wait = Callable[[float], Any]


class method(Generic[P, T]):  # noqa: N801 - used like a function
    """Turn a function that describes a call into a method that executes it, synchronously or asynchronously."""

    def __init__(self, describe: Callable[P, Call[T]]) -> None:
        self._describe = describe
        self.__doc__ = describe.__doc__

    @overload
    def __get__(self, client: "Client", owner: type | None = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type | None = None) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, client: None, owner: type | None = None) -> "method[P, T]": ...
    def __get__(self, client: Any, owner: type | None = None) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.execute(self._describe(*args, **kwargs))

        return update_wrapper(call, self._describe)


class _Calls:
    predict = method(calls.predict)
    explain = method(calls.explain)
    submit = method(calls.submit)
    job = method(calls.job)
    jobs = method(calls.jobs)
    cancel = method(calls.cancel)
    job_history = method(calls.job_history)
    plot = method(calls.plot)
    models = method(calls.models)
    model = method(calls.model)
    versions = method(calls.versions)
    version = method(calls.version)
    register = method(calls.register)
    download = method(calls.download)
    promote = method(calls.promote)
    rollback = method(calls.rollback)
    promotions = method(calls.promotions)
    ready = method(calls.ready)


def _options(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, "timeout": httpx.Timeout(timeout_s, connect=5)}


def _request(http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
    own: dict[str, Any] = {} if call.timeout_s is None else {"timeout": httpx.Timeout(call.timeout_s, connect=5)}
    return http.build_request(call.method, call.path, **call.arguments, **own)


def _read(call: Call[T], response: httpx.Response) -> T:
    if response.is_error:
        raise refusal(response)
    try:
        return call.read(response)
    except (ValueError, KeyError, TypeError) as err:
        raise TorchloopError(f"the server at {response.url} is not Torchloop: check the URL") from err


def _unreachable(http: httpx.Client | httpx.AsyncClient, err: httpx.RequestError) -> Unreachable:
    return Unreachable(str(http.base_url).rstrip("/"), str(err) or type(err).__name__)


def _stream(http: httpx.Client | httpx.AsyncClient, job_id: str, feed: Feed) -> httpx.Request:
    timeout = httpx.Timeout(10, read=_SILENCE_S)
    return http.build_request("GET", f"/jobs/{job_id}/events", headers=feed.headers(), timeout=timeout)


class Client(_Calls):
    """A synchronous client. Use it in a `with` block, or close it.

    `retries`: how often an idempotent call is retried, if the service asks for it or a connection broke.
    `transport`, `wait`: replace the network and time.sleep.
    Every call raises TorchloopError; see errors.py.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = 30,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        self._http = httpx.Client(**_options(url, key, timeout_s), transport=transport)
        self._retries = retries
        self._wait = wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def execute(self, call: Call[T]) -> T:
        """Execute a call."""
        retries = Retries(repeatable=call.repeatable, most=self._retries)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = self._http.send(_request(self._http, call))
            except httpx.RequestError as err:
                outcome = err
            pause_s = retries.after(outcome)
            if pause_s is not None:
                self._wait(pause_s)
            elif isinstance(outcome, httpx.Response):
                return _read(call, outcome)
            else:
                raise _unreachable(self._http, outcome) from outcome

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
                if response.is_error:
                    response.read()
                    raise refusal(response)
                for line in response.iter_lines():
                    if event := feed.take(line):
                        yield event
            finally:
                response.close()
        except httpx.RequestError as err:
            raise _unreachable(self._http, err) from err

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
        promote: Policy = "if_better",
        tensorboard: bool = False,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """Queue a job; with `wait`, return the finished job, and with `progress`, show a progress bar meanwhile."""
        job = self.submit(model, config, promote=promote, tensorboard=tensorboard)
        if not wait:
            return job
        with bar(progress) as show:
            return self.follow(job["id"], show)


class AsyncClient(_Calls):
    """As Client, with awaitable methods and `async for event in client.events(...)`."""

    def __init__(
        self,
        url: str = URL,
        *,
        key: str | None = None,
        timeout_s: float = 30,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(url, key, timeout_s), transport=transport)
        self._retries = retries
        self._wait = wait

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def execute(self, call: Call[T]) -> T:
        """Execute a call."""
        retries = Retries(repeatable=call.repeatable, most=self._retries)
        while True:
            outcome: httpx.Response | httpx.RequestError
            try:
                outcome = await self._http.send(_request(self._http, call))
            except httpx.RequestError as err:
                outcome = err
            pause_s = retries.after(outcome)
            if pause_s is not None:
                await self._wait(pause_s)
            elif isinstance(outcome, httpx.Response):
                return _read(call, outcome)
            else:
                raise _unreachable(self._http, outcome) from outcome

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
                if response.is_error:
                    await response.aread()
                    raise refusal(response)
                async for line in response.aiter_lines():
                    if event := feed.take(line):
                        yield event
            finally:
                await response.aclose()
        except httpx.RequestError as err:
            raise _unreachable(self._http, err) from err

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
        promote: Policy = "if_better",
        tensorboard: bool = False,
        wait: bool = False,
        progress: bool = False,
    ) -> Job:
        """As Client.train."""
        job = await self.submit(model, config, promote=promote, tensorboard=tensorboard)
        if not wait:
            return job
        with bar(progress) as show:
            return await self.follow(job["id"], show)
