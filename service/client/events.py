"""Server-sent events of a job, parsed line by line, and the retry policy. Nothing here does I/O."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from service.client.answers import FINAL
from service.client.errors import NotTorchloop, TorchloopError, Unreachable

Kind = Literal["progress", "log", "state"]
_KINDS: Mapping[str, Kind] = {"progress": "progress", "log": "log", "state": "state"}
_TRIES = 6
_LONGEST_S = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job. `id` rises; `data` is a progress point, output of the recipe, or the job's new state."""

    id: int
    kind: Kind
    data: Mapping[str, Any]

    @property
    def final(self) -> bool:
        """Whether this is the last event."""
        return self.kind == "state" and self.data.get("state") in FINAL


class Feed:
    """Parses the lines of a stream into events, over several connections."""

    def __init__(self, after: int = 0) -> None:
        self._last = after
        self._fields: dict[str, str] = {}
        self._vain = 0  # connections in a row without an event
        self.over = False

    def headers(self) -> dict[str, str]:
        """Return request headers that resume after the last event seen."""
        self._fields = {}
        return {"Accept": "text/event-stream", **({"Last-Event-ID": str(self._last)} if self._last else {})}

    def take(self, line: str) -> Event | None:
        """Return the event that this line completes, if any. Raises NotTorchloop."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        kind = _KINDS.get(fields.get("event", ""))
        if "data" not in fields or kind is None:
            return None
        try:
            event = Event(int(fields["id"]), kind, json.loads(fields["data"]))
            final = event.final
        except (LookupError, ValueError, AttributeError, RecursionError) as err:
            raise NotTorchloop("the event stream of the job has an event that cannot be read: check the URL") from err
        self._last, self._vain, self.over = event.id, 0, final
        return event

    def pause_s(self, err: TorchloopError | None) -> float:
        """Return seconds to wait before reconnecting. Raises `err` if reconnecting cannot help."""
        self._vain += 1
        if err is not None and (self._vain > _TRIES or not isinstance(err, Unreachable)):
            raise err
        return min(0.25 * 2.0 ** min(self._vain, _TRIES), _LONGEST_S)


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
