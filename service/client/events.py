"""Server-sent events of a job, a trial, or all changes, parsed line by line, and the retry policy.

Nothing here does I/O.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

import httpx

from service.client.answers import FINAL
from service.client.errors import BadArgument, NotTorchloop, TorchloopError, Unreachable
from service.client.trial_answers import TRIAL_FINAL

Kind = Literal["progress", "log", "state", "fault"]
_KINDS: Mapping[str, Kind] = {"progress": "progress", "log": "log", "state": "state", "fault": "fault"}
E = TypeVar("E")
ENDED = FINAL | TRIAL_FINAL
EVENTS = "text/event-stream"
_TRIES = 6
_LAST = 2**63 - 1  # of an id
_LONGEST_S = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` rises; `data` is a job's progress point, output of its recipe, or its new state; or a trial's new
    state, or the fault of its candidate.
    """

    id: int
    kind: Kind
    data: Mapping[str, Any]

    @property
    def final(self) -> bool:
        """Whether this is the last event."""
        return self.kind == "state" and self.data.get("state") in ENDED


@dataclass(frozen=True, slots=True)
class Entry:
    """One change in the feed. `id` rises; `kind` is such as "job.succeeded" or "drift.begun"; `data` has the fields of
    that kind, see docs/operating.md.
    """

    id: int
    kind: str
    model: str
    at: datetime
    data: Mapping[str, Any]


class Stream(ABC, Generic[E]):
    """Parses the lines of a stream into events, over several connections."""

    def __init__(self, after: int | None) -> None:
        """Raises BadArgument if `after` is not the id of an event."""
        if after is not None and (type(after) is not int or not 0 <= after <= _LAST):
            raise BadArgument("after must be the id of the last event that you know, a whole number, or 0 for all")
        self._last = after
        self._fields: dict[str, str] = {}
        self._vain = 0  # connections in a row without an event
        self.over = False

    def headers(self) -> dict[str, str]:
        """Return request headers that resume after the last event seen."""
        self._fields = {}
        return {"Accept": EVENTS, **({} if self._last is None else {"Last-Event-ID": str(self._last)})}

    def take(self, line: str) -> E | None:
        """Return the event that this line completes, if any. Raises NotTorchloop."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        try:
            event = self._event(fields)
            if event is None:
                return None
            self._last = int(fields["id"])
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as err:
            raise NotTorchloop("the event stream has an event that cannot be read: check the URL") from err
        self._vain = 0
        return event

    def pause_s(self, err: TorchloopError | None) -> float:
        """Return seconds to wait before reconnecting. Raises `err` if reconnecting cannot help."""
        self._vain += 1
        if err is not None and (self._vain > _TRIES or not isinstance(err, Unreachable)):
            raise err
        return min(0.25 * 2.0 ** min(self._vain, _TRIES), _LONGEST_S)

    @abstractmethod
    def _event(self, fields: Mapping[str, str]) -> E | None:
        """Return the event with these fields; None if it is of another kind. Raises LookupError, ValueError, ..."""


class Feed(Stream[Event]):
    """The stream of a job or a trial. It ends."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(after)
        self._last = self._last or None

    def _event(self, fields: Mapping[str, str]) -> Event | None:
        kind = _KINDS.get(fields.get("event", ""))
        if "data" not in fields or kind is None:
            return None
        event = Event(int(fields["id"]), kind, json.loads(fields["data"]))
        self.over = event.final
        return event


class Changes(Stream[Entry]):
    """The feed of all changes. An id alone is the position from which it goes on."""

    def _event(self, fields: Mapping[str, str]) -> Entry | None:
        if "data" not in fields:
            if "id" in fields:
                self._last, self._vain = int(fields["id"]), 0
            return None
        data = json.loads(fields["data"])
        model, at = data.pop("model"), datetime.fromtimestamp(data.pop("at"), UTC)
        return Entry(int(fields["id"]), fields["event"], model, at, data)


class Retries:
    """Decides whether to retry a call, and after how long: if the service asks for it or the network failed."""

    def __init__(self, *, repeatable: bool, most: int) -> None:
        self._left = most if repeatable else 0
        self._pause_s = 0.1

    def after(self, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Return seconds to wait before the next try; None if the outcome is final.

        A refused connection is final, since no server listens. So is a timeout: the next try would take as long.
        """
        if self._left <= 0 or isinstance(outcome, httpx.ConnectError | httpx.TimeoutException):
            return None
        pause_s = self._pause_s
        if isinstance(outcome, httpx.Response):
            asked = outcome.headers.get("retry-after", "")
            if outcome.status_code not in {429, 503} or not asked.isdecimal():
                return None
            pause_s = min(float(asked), _LONGEST_S)
        self._left -= 1
        self._pause_s *= 2
        return pause_s
