"""Spans to an OTLP collector, by the OpenTelemetry SDK: queued and sent in batches by a thread of the SDK."""

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.telemetry.spans import Span

_PROPAGATOR = TraceContextTextMapPropagator()


class Exported:
    """See Spans. The queue is bounded by OTEL_BSP_MAX_QUEUE_SIZE (2,048): spans above it are dropped."""

    def __init__(self, software: str, environ: Mapping[str, str]) -> None:
        """`software` is name and version, such as `torchloop 0.1.0`; OTEL_SERVICE_NAME replaces the name."""
        name, version = software.split()
        named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {} if named else {"service.name": name}
        resource = Resource.create({**own, "service.version": version})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(name, version)

    def record(self, span: Span) -> None:
        """See Spans."""
        context = None if span.parent is None else _PROPAGATOR.extract({"traceparent": span.parent.decode("latin-1")})
        made = self._tracer.start_span(span.name, context, SpanKind.SERVER, span.attributes, start_time=span.began_ns)
        if span.failed:
            made.set_status(Status(StatusCode.ERROR))
        made.end(span.ended_ns)

    def close(self) -> None:
        """See Spans."""
        self._provider.shutdown()
