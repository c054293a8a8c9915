"""Uploads of datasets by the client while the service restarts, answers oddly, or the file changes."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import (
    AsyncClient,
    BadArgument,
    Client,
    Conflict,
    NotFound,
    NotTorchloop,
    ServiceFailed,
    TooLarge,
    TorchloopError,
    Unreachable,
)

CONTENT = b"x,value\n1,2\n3,4\n"  # 16 bytes: parts of 5, the last one of 1
REFUSED = httpx.ConnectError("connection refused")
Fault = httpx.Response | httpx.RequestError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "field.csv"
    path.write_bytes(CONTENT)
    return path


def problem(status: int, detail: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "T", "status": status, "detail": detail}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


@dataclass
class Service:
    """Takes an upload in parts; `faults` are the answers to the next parts, `state_faults` those to the next GET."""

    faults: list[Fault | None] = field(default_factory=list)
    state_faults: list[Fault] = field(default_factory=list)
    part_bytes: Any = 5
    content: bytearray = field(default_factory=bytearray)
    asked: list[str] = field(default_factory=list)
    sha256: str = ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.raw_path.decode()}")
        if request.url.path.endswith("/finish"):
            assert hashlib.sha256(self.content).hexdigest() == self.sha256
            return httpx.Response(202, json={"id": "j", "state": "queued"})
        if request.method == "PUT":
            return self._part(request)
        if request.method == "POST":
            self.sha256 = json.loads(request.content)["sha256"]
        elif self.state_faults:
            return _answered(self.state_faults.pop(0))
        state = {"upload": "u", "bytes": 16, "received": len(self.content), "part_bytes": self.part_bytes}
        return httpx.Response(200, json=state)

    def _part(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return _answered(fault)
        assert int(request.url.params["offset"]) == len(self.content)
        assert 0 < len(request.content) <= 16 - len(self.content)
        self.content += request.content
        return httpx.Response(200, json={"received": len(self.content)})


def _answered(fault: Fault) -> httpx.Response:
    if isinstance(fault, httpx.RequestError):
        raise fault
    return fault


def client_of(
    service: Callable[[httpx.Request], httpx.Response], waits: list[float] | None = None, retries: int = 3
) -> Client:
    waited: list[float] = [] if waits is None else waits
    return Client("http://host", transport=httpx.MockTransport(service), wait=waited.append, retries=retries)


FAULTS: dict[str, tuple[list[Fault | None], list[Fault]]] = {
    "service restarted": ([None, REFUSED], [REFUSED] * 5),
    "proxy without the service": ([httpx.Response(502), None], [httpx.Response(502), httpx.Response(504)]),
    "service failed": ([problem(500, "x")], []),
    "restarted twice": ([REFUSED, None, REFUSED], [REFUSED] * 2),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_an_upload_waits_for_a_service_that_restarts(file: Path, kind: str) -> None:
    faults, state_faults = FAULTS[kind]
    service = Service(faults=list(faults), state_faults=list(state_faults))
    with client_of(service) as client:
        assert client.datasets.upload("line", "field", file)["id"] == "j"
    assert bytes(service.content) == CONTENT
    assert (service.faults, service.state_faults) == ([], [])


def test_after_a_minute_it_gives_up_and_names_the_upload(file: Path) -> None:
    service, waits = Service(faults=[REFUSED], state_faults=[REFUSED] * 99), list[float]()
    with client_of(service, waits) as client, pytest.raises(Unreachable, match=r"resume u$"):
        client.datasets.upload("line", "field", file)
    assert waits == [1, 1, 2, 4, 8, 8, 8, 8, 8, 8, 8]
    with client_of(Service(faults=[REFUSED], state_faults=[REFUSED]), waits, retries=0) as client:
        with pytest.raises(Unreachable):  # a client without retries asks once
            client.datasets.upload("line", "field", file)
        assert waits[11:] == [1]


def test_a_service_that_fails_at_every_part_ends_the_upload(file: Path) -> None:
    service = Service(faults=[problem(500, "x")] * 99)
    with client_of(service) as client, pytest.raises(ServiceFailed, match=r"resume u$"):
        client.datasets.upload("line", "field", file)
    assert len(service.faults) == 99 - 4


ENDED: dict[str, tuple[httpx.Response, type[TorchloopError]]] = {
    "expired": (problem(404, "unknown upload"), NotFound),
    "too large": (problem(413, "too many bytes"), TooLarge),
    "nothing taken": (httpx.Response(200, json={"received": 0}), NotTorchloop),
    "text": (httpx.Response(200, json={"received": "5"}), NotTorchloop),
    "page": (httpx.Response(200, text="<html>Log in</html>"), NotTorchloop),
}


@pytest.mark.parametrize("kind", ENDED)
def test_a_part_that_is_refused_or_answered_oddly_ends_the_upload_at_once(file: Path, kind: str) -> None:
    answer, error = ENDED[kind]
    service = Service(faults=[answer] * 3)
    with client_of(service) as client, pytest.raises(error):
        client.datasets.upload("line", "field", file)
    assert len(service.faults) == 2


@pytest.mark.parametrize("part_bytes", [0, -1, 10**12])
def test_odd_sizes_of_parts_are_not_followed(file: Path, part_bytes: int) -> None:
    service = Service(part_bytes=part_bytes)
    with client_of(service) as client:
        client.datasets.upload("line", "field", file)
    assert bytes(service.content) == CONTENT


def test_a_file_that_shrinks_is_an_error_and_one_that_grows_is_sent_as_it_was(file: Path) -> None:
    with client_of(Service()) as client, pytest.raises(BadArgument, match=r"field\.csv has become shorter"):
        client.datasets.upload("line", "field", file, on_begin=lambda _: _written(file, b""))
    file.write_bytes(CONTENT)
    service = Service()
    with client_of(service) as client:
        client.datasets.upload("line", "field", file, on_begin=lambda _: _written(file, CONTENT * 2))
    assert bytes(service.content) == CONTENT


def _written(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def test_a_file_that_is_gone_is_an_error_of_the_client(file: Path) -> None:
    with client_of(Service()) as client, pytest.raises(BadArgument, match=r"field\.csv cannot be read"):
        client.datasets.upload("line", "field", file, on_begin=lambda _: file.unlink())


@pytest.mark.parametrize("reference", [5, "@1", "field@x"])
def test_a_reference_of_another_form_is_named(reference: Any) -> None:
    with client_of(Service()) as client, pytest.raises(BadArgument, match="write it as name@version"):
        client.datasets.get("line", reference)


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>Log in</html>"), problem(409, "used")])
def test_a_deletion_that_was_not_done_is_an_error(answer: httpx.Response) -> None:
    with client_of(lambda _: answer) as client, pytest.raises((NotTorchloop, Conflict)):
        client.datasets.delete("line", "field@1")


def test_the_async_client_waits_as_well_and_reads_the_file_in_a_thread(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(faults=[REFUSED], state_faults=[REFUSED])
    waits: list[float] = []
    threads: set[threading.Thread] = set()
    opened = Path.open

    def open_(path: Path, *args: Any, **options: Any) -> Any:
        threads.add(threading.current_thread())
        return opened(path, *args, **options)

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def go() -> Any:
        async with AsyncClient("http://host", transport=httpx.MockTransport(service), wait=wait) as client:
            with monkeypatch.context() as patched:
                patched.setattr(Path, "open", open_)
                return await client.datasets.upload("line", "field", file)

    assert asyncio.run(go())["id"] == "j"
    assert (bytes(service.content), waits) == (CONTENT, [1, 1])
    assert threads
    assert threading.main_thread() not in threads
