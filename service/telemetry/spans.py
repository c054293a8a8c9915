"""Finished spans, and their destination."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A finished span; `parent` is the valid traceparent header of its request."""

    name: str
    parent: bytes | None
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    failed: bool


class Spans(Protocol):
    """Destination of spans: the SDK, or a list in a test."""

    def record(self, span: Span) -> None:
        """Take a finished span, to send it later."""
        ...

    def close(self) -> None:
        """Flush the queue. Blocks."""
        ...
