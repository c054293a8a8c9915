"""Tracing: which requests get a span, and what a collector receives."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from service.telemetry.tracing import Sampler, tracing_of
from tests import fast_ways
from tests.fakes import LINE, save_line
from tests.serving import serving

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


class Collector:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_collector_gets_a_span_of_each_prediction_below_the_span_of_its_caller(
    collector: Collector, tmp_path: Path
) -> None:
    save_line(tmp_path)
    v2 = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    with serving(tmp_path, {"line": LINE}) as client:
        identity = ask(client, f"{PARENT}-01")
        ask(client, f"{PARENT}-00")
        ask(client, None)
        client.post("/v2/models/line/infer", json=v2)
        assert client.post("/predict/line", json={"inputs": [["x"]]}).status_code == 422
    first, second, third = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert (first.name, first.kind) == ("POST /predict/{model}", 2)
    assert first.trace_id.hex() == PARENT.split("-")[1]
    assert first.parent_span_id.hex() == PARENT.split("-")[2]
    assert second.parent_span_id == b""
    assert third.name == "POST /v2/models/{model}/infer"
    found = attributes(first)
    assert found.pop("torchloop.queue_ms") >= 0
    assert found.pop("torchloop.forward_ms") > 0
    assert found == {
        "http.request.method": "POST",
        "http.route": "/predict/{model}",
        "http.response.status_code": 200,
        "torchloop.model": "line",
        "torchloop.version": 1,
        "torchloop.prediction_id": identity,
        "torchloop.samples": 2,
        "torchloop.batch_size": 2,
    }
    assert first.end_time_unix_nano > first.start_time_unix_nano
    (resource, *_) = collector.requests[0].resource_spans
    assert attributes(resource.resource)["service.name"] == "torchloop"


def ask(client: TestClient, parent: str | None) -> str:
    headers = {} if parent is None else {"traceparent": parent}
    identity: str = client.post("/predict/line", json={"inputs": [[1], [2]]}, headers=headers).json()["id"]
    return identity


def test_a_collector_that_is_away_costs_no_prediction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        assert ask(client, None)


@pytest.mark.parametrize(
    ("name", "argument", "parent", "sampled"),
    [
        ("", "", None, True),
        ("", "", f"{PARENT}-01", True),
        ("", "", f"{PARENT}-00", False),
        ("", "", "nonsense", True),
        ("always_on", "", f"{PARENT}-00", True),
        ("always_off", "", f"{PARENT}-01", False),
        ("parentbased_always_off", "", f"{PARENT}-01", True),
        ("parentbased_always_off", "", f"cc{PARENT[2:]}-01", True),
        ("parentbased_always_off", "", f"cc{PARENT[2:]}-01-more", True),
        ("traceidratio", "0.6", None, True),
        ("traceidratio", "0.4", None, False),
        ("parentbased_traceidratio", "0.4", f"{PARENT}-01", True),
    ],
)
def test_the_variables_of_the_sdk_decide_which_requests_get_a_span(
    name: str, argument: str, parent: str | None, sampled: bool
) -> None:
    read = Sampler.of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    sampler = Sampler(read.ratio, read.follows, lambda: 0.5)
    assert sampler.samples(None if parent is None else parent.encode()) is sampled


MALFORMED = [
    f"ff{PARENT[2:]}-01",
    f"FF{PARENT[2:]}-01",
    f"{PARENT}-01-more",
    f"{PARENT}-01-",
    f"{PARENT}-1",
    f"{PARENT}-0g",
    f"{PARENT}-",
    PARENT,
    f"cc{PARENT[2:]}-01more",
    f"cc{PARENT[2:]}-01-{'m' * 457}",  # longer than the SDK reads
    f"0{PARENT[2:]}-01",
    f"00-{'0' * 32}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'0' * 16}-01",
    f"00-{'1' * 31}-{'1' * 16}-01",
    f"00-{'1' * 32}-{'1' * 17}-01",
    f"{PARENT.upper()}-01",
    f"{PARENT}-01,{PARENT}-01",
    "",
]


@pytest.mark.parametrize("parent", MALFORMED)
def test_a_malformed_parent_decides_nothing(parent: str) -> None:
    assert not Sampler(0, follows=True).samples(parent.encode())


@pytest.mark.parametrize("send", [fast_ways.ask, fast_ways.ask_in_chunks])
def test_a_span_with_a_malformed_parent_has_none_on_either_way(
    send: Callable[..., fast_ways.Answer], collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those that are sampled: by their flags none would be."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # they are sent when the service stops
    save_line(tmp_path)
    body = b'{"inputs": [[1.0]]}'
    unsampled = [parent.replace("-01", "-00") for parent in MALFORMED]
    with fast_ways.application(tmp_path, {"line": LINE}) as where:
        for parent in [f"{PARENT}-00", *unsampled, f"{PARENT}-01"]:
            assert send(where, "line", fast_ways.JSON, body, traceparent=parent)[0] == 200
    *roots, child = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert len(roots) == len(MALFORMED)
    assert {span.parent_span_id for span in roots} == {b""}
    assert PARENT.split("-")[1] not in {span.trace_id.hex() for span in roots}
    assert child.parent_span_id.hex() == PARENT.split("-")[2]


@pytest.mark.parametrize("path", ["/predict/line", "/v2/models/line/infer"])
def test_two_parents_are_none(path: str, collector: Collector, tmp_path: Path) -> None:
    save_line(tmp_path)
    v2 = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
    body = v2 if path.startswith("/v2") else {"inputs": [[1.0]]}
    with serving(tmp_path, {"line": LINE}) as client:
        two = [("traceparent", f"{PARENT}-00")] * 2
        assert client.post(path, json=body, headers=httpx.Headers(two)).status_code == 200
    (span,) = collector.spans
    assert span.parent_span_id == b""


@pytest.mark.parametrize("environ", [{}, {**HERE, "OTEL_SDK_DISABLED": "true"}])
def test_there_is_no_tracing_unless_the_environment_asks_for_it(environ: Mapping[str, str]) -> None:
    assert tracing_of(environ, "torchloop 1") is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf only"),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "no tracing"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "no tracing"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"}, "no tracing"),
    ],
)
def test_what_cannot_be_done_is_logged_and_the_service_starts(
    more: Mapping[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert tracing_of({**HERE, **more}, "torchloop 1") is None
    assert words in caplog.text


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert tracing_of(HERE, "torchloop 1") is None
    assert "torchloop[otel]" in caplog.text
