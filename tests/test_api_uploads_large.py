"""A checkpoint is written to the store as it arrives: limits, codings, faults half way."""

import gzip
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.checkpoints import state_dict
from models.checkpoints.storage import Storage
from models.messages import Adopt, Failed, FailureKind, Order
from tests.fakes import LINE, InProcess, Line
from tests.serving import BASE_URL, no_recipes, serving

ADDRESS = "/models/line/versions"
LIMIT = 6_000_000
CONTENT = state_dict.to_bytes(Line(slope=5).state_dict())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    settings: dict[str, Any] = {"store": tmp_path / "store", "max_body_bytes": 1000, "max_checkpoint_bytes": LIMIT}
    with serving(tmp_path, {"line": LINE}, no_recipes, **settings) as client:
        yield client


def left(client: TestClient, tmp_path: Path) -> tuple[list[Path], int]:
    """Temporary files of uploads, and the number of registered versions."""
    return list((tmp_path / "store").glob(".upload-*")), len(client.get(ADDRESS).json()["versions"])


@pytest.mark.many
@pytest.mark.parametrize(
    ("coding", "content"),
    [
        ("identity", CONTENT),
        ("gzip", gzip.compress(CONTENT)),
        ("x-gzip", gzip.compress(CONTENT)),
        ("gzip", gzip.compress(CONTENT[:700]) + gzip.compress(b"") + gzip.compress(CONTENT[700:])),
        ("deflate", zlib.compress(CONTENT)),
        ("deflate", zlib.compress(CONTENT, wbits=-15)),
    ],
    ids=["identity", "gzip", "x-gzip", "members", "zlib", "raw"],
)
def test_a_checkpoint_may_be_larger_than_other_bodies_and_compressed(
    client: TestClient, tmp_path: Path, coding: str, content: bytes
) -> None:
    assert len(CONTENT) > 1000
    pieces = (content[at : at + 1] for at in range(len(content)))
    response = client.post(ADDRESS, content=pieces, headers={"Content-Encoding": coding})
    assert response.status_code == 201, response.text
    assert left(client, tmp_path) == ([], 1)
    assert client.get(f"{ADDRESS}/1/checkpoint").content == CONTENT


def zeros(count: int, size: int = 1_000_000) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(size)


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        (zeros(7), {}, "the body is larger than 6000000 bytes: raise TORCHLOOP_MAX_CHECKPOINT_BYTES"),
        (b"", {"Content-Length": "6000001"}, "the body is larger than 6000000 bytes: raise"),
        (gzip.compress(bytes(LIMIT + 1)), {"Content-Encoding": "gzip"}, "6000000 bytes when it is unpacked: raise"),
    ],
    ids=["arriving", "declared", "unpacked"],
)
def test_a_checkpoint_above_the_limit_is_refused_with_the_way_out(
    client: TestClient, tmp_path: Path, content: Any, headers: dict[str, str], words: str
) -> None:
    response = client.post(ADDRESS, content=content, headers=headers)
    assert response.status_code == 413
    assert words in response.json()["detail"]
    assert left(client, tmp_path) == ([], 0)


@pytest.mark.parametrize(
    ("coding", "content", "status", "words"),
    [
        ("gzip", CONTENT, 400, "the body is no gzip stream"),
        ("gzip", gzip.compress(CONTENT)[:-9], 400, "not a whole gzip stream: it is cut off"),
        ("gzip", gzip.compress(CONTENT) + b"more", 400, "that is no gzip stream follows the gzip stream"),
        ("gzip", b"\x1f", 400, "not a whole gzip stream: it is cut off"),
        ("br", CONTENT, 415, "send one of gzip, deflate"),
    ],
    ids=["plain", "cut", "followed", "one byte", "unknown"],
)
def test_a_coding_that_does_not_fit_is_refused(
    client: TestClient, tmp_path: Path, coding: str, content: bytes, status: int, words: str
) -> None:
    response = client.post(ADDRESS, content=content, headers={"Content-Encoding": coding})
    assert response.status_code == status
    assert words in response.json()["detail"]
    assert left(client, tmp_path) == ([], 0)


def test_bad_arguments_are_refused_before_the_file_is_read(client: TestClient, tmp_path: Path) -> None:
    response = client.post(ADDRESS, content=zeros(7), params={"arguments": "[]"})
    assert (response.status_code, left(client, tmp_path)) == (422, ([], 0))


def test_a_full_disk_is_reported_and_leaves_nothing(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Storage.upload

    @contextmanager
    def upload(storage: Storage) -> Iterator[Any]:
        with real(storage) as file:
            yield Full(file.name)

    monkeypatch.setattr(Storage, "upload", upload)
    response = client.post(ADDRESS, content=CONTENT)
    assert response.status_code == 503
    assert "free some space" in response.json()["detail"]
    monkeypatch.undo()
    assert left(client, tmp_path) == ([], 0)
    assert client.post(ADDRESS, content=CONTENT).status_code == 201


class Full:
    """A file on a full disk."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, _: bytes) -> None:
        raise OSError(28, "No space left on device")


def ask(client: TestClient, receive: Callable[[], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the application sends for an upload that arrives by `receive`."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": ADDRESS, "raw_path": ADDRESS.encode(), "query_string": b"",
        "headers": [(b"host", BASE_URL.removeprefix("http://").encode())], "scheme": "http", "root_path": "",
        "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "state": {},
    }  # fmt: skip
    application: Any = client.app
    assert client.portal
    client.portal.call(application, scope, receive, send)
    return sent


def test_a_client_that_goes_away_half_way_leaves_nothing(client: TestClient, tmp_path: Path) -> None:
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        seen.append(len(list((tmp_path / "store").glob(".upload-*"))))
        if len(seen) < 3:
            return {"type": "http.request", "body": bytes(2_000_000), "more_body": True}
        return {"type": "http.disconnect"}

    ask(client, receive)
    assert seen == [1, 1, 1]  # there was a file meanwhile
    assert left(client, tmp_path) == ([], 0)


def test_a_large_upload_needs_little_memory(tmp_path: Path) -> None:
    block, count = bytes(65_536), 100 * 16

    async def receive() -> dict[str, Any]:
        nonlocal count
        count -= 1
        return {"type": "http.request", "body": block, "more_body": count > 0}

    with serving(tmp_path, {"line": LINE}, no_recipes, Refusing, store=tmp_path / "store") as client:
        tracemalloc.start()
        sent = ask(client, receive)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sent[0]["status"] == 422
    assert peak < 16_000_000


class Refusing(InProcess):
    """A subprocess that refuses the upload without reading it."""

    def ask(self, order: Order[Any], timeout_s: float) -> Any:
        assert isinstance(order, Adopt)
        assert order.path.stat().st_size == 100 * 2**20
        assert timeout_s > 120
        return Failed(kind=FailureKind.CHECKPOINT, title="", detail="no state_dict")
