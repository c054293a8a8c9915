"""OpenTelemetry tracing (the extra `otel`): one span for each sampled prediction, built after its answer.

A span costs 20 µs and more, so only sampled requests get one, from times that were taken anyway. It is the child of the
caller's span, if the request has a valid traceparent header (W3C Trace Context). The standard variables configure it:
without OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT there is no tracing and no cost.
"""

import asyncio
import importlib.util
import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.errors import InvalidInput
from service.errors import ServiceError
from service.telemetry.served import PARENT, Served
from service.telemetry.spans import Span, Spans

log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Version ff is invalid, 00 ends after its flags, and others may have more fields; the SDK reads 512 characters.
_PARENT = re.compile(
    rb"(?:(00)|(?!00|ff)[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?(1)|(?:-.{0,456})?)"
)
_SAMPLED = 0x01
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


@dataclass(frozen=True, slots=True)
class Sampler:
    """Head sampling as OTEL_TRACES_SAMPLER says; decided without the SDK, which would cost more than the rest.

    `ratio` is the share of requests without a sampled or unsampled parent; `follows` the parent's decision, if there is
    one. `chance` returns a number in [0, 1).
    """

    ratio: float
    follows: bool
    chance: Callable[[], float] = random.random

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Sampler":
        """Read the variables. Raises ValueError."""
        name = environ.get("OTEL_TRACES_SAMPLER", "") or "parentbased_always_on"
        kind = name.removeprefix("parentbased_")
        ratios = {"always_on": 1.0, "always_off": 0.0}
        if kind == "traceidratio":
            ratios[kind] = _ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "") or "1")
        if kind not in ratios:
            raise ValueError(
                f"OTEL_TRACES_SAMPLER is {name!r}; use always_on, always_off or traceidratio, or one of them after "
                "parentbased_"
            )
        return cls(ratios[kind], name != kind)

    def samples(self, parent: bytes | None) -> bool:
        """Return whether a request with that traceparent header gets a span."""
        if self.follows and parent is not None and (found := _PARENT.fullmatch(parent)):
            return bool(int(found[2], 16) & _SAMPLED)
        return self.ratio >= 1 or self.chance() < self.ratio


class Tracing:
    """Observer that makes spans. `now` returns ns since 1970."""

    def __init__(self, spans: Spans, sampler: Sampler, now: Callable[[], int] = time.time_ns) -> None:
        self._spans = spans
        self._sampler = sampler
        self._now = now

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:  # noqa: ARG002 - see Observer
        """See Observer."""
        return self._sampler.samples(headers.get(PARENT))

    def ended(self, served: Served) -> None:
        """See Observer."""
        ended, status = self._now(), _status(served.error)
        parent = served.headers.get(PARENT)
        attributes = {
            "http.request.method": "POST",
            "http.route": served.route,
            "http.response.status_code": status,
            "torchloop.model": served.model,
            "torchloop.samples": len(served.positions),
            "torchloop.batch_size": served.batch_size,
            "torchloop.queue_ms": served.queue_s * 1000,
            "torchloop.forward_ms": served.forward_s * 1000,
        }
        if served.version is not None:
            attributes |= {"torchloop.version": served.version, "torchloop.prediction_id": served.id}
        self._spans.record(
            Span(
                name=f"POST {served.route}",
                parent=parent if parent is not None and _PARENT.fullmatch(parent) else None,
                began_ns=ended - int(served.total_s * 1e9),
                ended_ns=ended,
                attributes=attributes,
                failed=status >= 500,
            )
        )

    async def __aenter__(self) -> None:
        """Spans are sent while the context is entered."""

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._spans.close)


def tracing_of(environ: Mapping[str, str], software: str) -> Tracing | None:
    """Return the tracing that the environment asks for; None if it asks for none, or for an unsupported kind."""
    if not any(environ.get(name) for name in _ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not _is_installed():
        log.warning("no tracing: OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra is not installed: torchloop[otel]")
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        log.warning("no tracing: spans are sent by http/protobuf only", extra={"protocol": protocol})
        return None
    try:
        sampler = Sampler.of(environ)
    except ValueError as err:
        log.warning("no tracing", extra={"reason": str(err)})
        return None
    from service.telemetry.otlp import Exported  # noqa: PLC0415 - the SDK is an extra, and takes 0.3 s to import

    return Tracing(Exported(software, environ), sampler)


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(package) is not None for package in _PACKAGES)
    except ModuleNotFoundError:  # of a package above it
        return False


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, not {text!r}")
    return ratio


def _status(error: Exception | None) -> int:
    if error is None:
        return 200
    if isinstance(error, InvalidInput):
        return 422
    return error.status if isinstance(error, ServiceError) else 500
