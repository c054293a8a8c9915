"""Event streams of a client: of jobs, of trials, and of all changes. They connect again if they break."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, overload

import httpx

from service.client import calls, trial_calls
from service.client.answers import Job
from service.client.arguments import checked
from service.client.call import Call
from service.client.connection import Service
from service.client.errors import BadArgument, TorchloopError
from service.client.events import ENDED, EVENTS, Changes, Entry, Event, Feed, Stream
from service.client.method import Asynchronous, Synchronous
from service.client.methods import Calls
from service.client.sending import request
from service.client.show import Show

E = TypeVar("E")
_SILENCE_S = 45.0  # the service sends a comment on a stream every 15 seconds
Open = Callable[[Mapping[str, str]], Call[None]]  # headers -> the call of an event stream
Kinds = str | Sequence[str] | None


def _opening(http: httpx.Client | httpx.AsyncClient, stream: Open, feed: Stream[E]) -> httpx.Request:
    return request(http, stream(feed.headers()), httpx.Timeout(10, read=_SILENCE_S))


def _no_stream(service: Service, response: httpx.Response) -> TorchloopError:
    """Return the error for a response that is not an event stream. Its content must have been read."""
    return service.refusal(response) if response.is_error else service.not_torchloop(response)


def _is_stream(response: httpx.Response) -> bool:
    """Return whether a response is an event stream; 204 is the stream of a job or trial that has ended."""
    kind = response.headers.get("content-type", EVENTS)
    return response.status_code == 204 or (response.is_success and kind.startswith(EVENTS))


def _require_no_filter(model: str | None, kind: Kinds, *, follow: bool) -> None:
    """Raise BadArgument if the events of a job are to be filtered."""
    if model is not None or kind is not None or not follow:
        raise BadArgument("model, kind and follow choose among all changes: leave out the job, or leave out these")


class Streams(Calls, Synchronous):
    """The streams of Client."""

    _http: httpx.Client
    _service: Service
    _wait: Callable[[float], Any]

    @overload
    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]: ...
    @overload
    def events(
        self, *, model: str | None = None, kind: Kinds = None, after: int | None = None, follow: bool = True
    ) -> Iterator[Entry]: ...
    @checked
    def events(
        self,
        job_id: str | None = None,
        *,
        model: str | None = None,
        kind: Kinds = None,
        after: int | None = None,
        follow: bool = True,
    ) -> Iterator[Event] | Iterator[Entry]:
        """Yield all changes, or the events of a job to its end; connects again if necessary, and misses none.

        model, kind  only changes of a model, or of kinds: "job.succeeded", "job.*" for all of jobs, or several
        after        the id of the last event that is known: later ones only. Without it the events of a job begin with
                     its first one, and changes with the next one; with 0 all that there are
        follow       False: end after the changes that there are, from the first one, or from `after` on
        """
        if job_id is not None:
            _require_no_filter(model, kind, follow=follow)
            return self._events(partial(calls.stream, job_id), Feed(after), self._has_ended(self.job, job_id))
        chosen = partial(calls.change_stream, model, kind, follow)
        return self._events(chosen, Changes(after), lambda: not follow)

    @checked
    def trial_events(self, trial_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yield the events of a trial, from the first one after `after` to its end; connects again if necessary."""
        ended = self._has_ended(self.trial_by_id, trial_id)
        return self._events(partial(trial_calls.trial_stream, trial_id), Feed(after), ended)

    def _has_ended(self, subject: Callable[[str], Any], name: str) -> Callable[[], bool]:
        return lambda: subject(name)["state"] in ENDED

    def _events(self, stream: Open, feed: Stream[E], has_ended: Callable[[], bool]) -> Iterator[E]:
        while not feed.over:
            failure: TorchloopError | None = None
            try:
                yield from self._connected(stream, feed)
                if feed.over or has_ended():
                    return
            except TorchloopError as err:
                failure = err
            self._wait(feed.pause_s(failure))

    def _connected(self, stream: Open, feed: Stream[E]) -> Iterator[E]:
        """Yield the events of one connection."""
        try:
            response = self._http.send(_opening(self._http, stream, feed), stream=True)
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

    @checked
    def follow(self, job_id: str, show: Show | None = None) -> Job:
        """Wait for a job and return it, whatever its final state; `show` is called with each event."""
        for event in self.events(job_id):
            if show:
                show(event)
        return self.job(job_id)


class AsyncStreams(Calls, Asynchronous):
    """The streams of AsyncClient."""

    _http: httpx.AsyncClient
    _service: Service
    _wait: Callable[[float], Awaitable[Any]]

    @overload
    def events(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]: ...
    @overload
    def events(
        self, *, model: str | None = None, kind: Kinds = None, after: int | None = None, follow: bool = True
    ) -> AsyncIterator[Entry]: ...
    @checked
    def events(
        self,
        job_id: str | None = None,
        *,
        model: str | None = None,
        kind: Kinds = None,
        after: int | None = None,
        follow: bool = True,
    ) -> AsyncIterator[Event] | AsyncIterator[Entry]:
        """As Client.events."""
        if job_id is not None:
            _require_no_filter(model, kind, follow=follow)
            return self._events(partial(calls.stream, job_id), Feed(after), self._has_ended(self.job, job_id))

        async def over() -> bool:
            return not follow

        return self._events(partial(calls.change_stream, model, kind, follow), Changes(after), over)

    @checked
    def trial_events(self, trial_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """As Client.trial_events."""
        ended = self._has_ended(self.trial_by_id, trial_id)
        return self._events(partial(trial_calls.trial_stream, trial_id), Feed(after), ended)

    def _has_ended(self, subject: Callable[[str], Awaitable[Any]], name: str) -> Callable[[], Awaitable[bool]]:
        async def ended() -> bool:
            return (await subject(name))["state"] in ENDED

        return ended

    async def _events(
        self, stream: Open, feed: Stream[E], has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[E]:
        while not feed.over:
            failure: TorchloopError | None = None
            try:
                async for event in self._connected(stream, feed):
                    yield event
                if feed.over or await has_ended():
                    return
            except TorchloopError as err:
                failure = err
            await self._wait(feed.pause_s(failure))

    async def _connected(self, stream: Open, feed: Stream[E]) -> AsyncIterator[E]:
        """Yield the events of one connection."""
        try:
            response = await self._http.send(_opening(self._http, stream, feed), stream=True)
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

    @checked
    async def follow(self, job_id: str, show: Show | None = None) -> Job:
        """As Client.follow."""
        async for event in self.events(job_id):
            if show:
                show(event)
        return await self.job(job_id)
