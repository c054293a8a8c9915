"""The service while its database or its disk does not work: 503, a log line, a count, a word in /health/ready."""

import logging
import resource
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from starlette.testclient import TestClient

from benchmarks.postgres import Postgres
from tests.fakes import LINE, save_line
from tests.serving import no_recipes, serving
from tests.waiting import until

Fault = Callable[[], AbstractContextManager[None]]
STUCK_S = 60  # a request that takes this long would never have been answered


class Pragmas:
    """Pragmas by which SQLite itself refuses to write, on all connections that the service opens."""

    def __init__(self) -> None:
        self._connections: list[Any] = []
        self._failing: str | None = None

    def opened(self, connection: Any, _: Any) -> None:
        self._connections.append(connection)
        if self._failing:
            connection.execute(f"PRAGMA {self._failing}")

    @contextmanager
    def set(self, failing: str, working: str) -> Iterator[None]:
        self._failing = failing
        self._execute(failing)
        try:
            yield
        finally:
            self._failing = None
            self._execute(working)

    def _execute(self, pragma: str) -> None:
        for connection in self._connections:
            with suppress(sqlite3.ProgrammingError):  # the pool has closed it
                connection.execute(f"PRAGMA {pragma}")


@pytest.fixture
def pragmas() -> Iterator[Pragmas]:
    """For the connections that are opened from now on."""
    pragmas = Pragmas()
    event.listen(Engine, "connect", pragmas.opened)
    yield pragmas
    event.remove(Engine, "connect", pragmas.opened)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The write lock of a SQLite database, held as by a frozen process."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def train(client: TestClient) -> Any:
    return client.post("/train", json={"model": "line"})


def answers(client: TestClient, ask: Callable[[TestClient], Any], times: int = 1) -> list[Any]:
    """Answers to requests that are sent at the same time."""
    pool = ThreadPoolExecutor(times)
    try:
        return [asked.result(STUCK_S) for asked in [pool.submit(ask, client) for _ in range(times)]]
    finally:
        pool.shutdown(wait=False)


def refused(client: TestClient, ask: Callable[[TestClient], Any], times: int = 1) -> None:
    for response in answers(client, ask, times):
        assert (response.status_code, response.headers["retry-after"]) == (503, "2"), response.text
        assert "Store unavailable" in response.text
        for secret in ("Traceback", "psycopg", "sqlite3", "/tmp", "host="):  # noqa: S108
            assert secret not in response.text


def shown_while(client: TestClient, part: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Health, metrics and the log name the fault, and predictions go on."""
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert part in ready.json()["store"]
    assert client.get("/health/live").status_code == 200
    (line,) = [line for line in client.get("/metrics").text.splitlines() if f'writes_total{{fault="{kind}"}}' in line]
    assert float(line.split()[-1]) >= 1
    assert client.post("/predict/line", json={"inputs": [[3.0]]}).json()["predictions"] == [{"value": 7.0}]
    logged = [record for record in caplog.records if record.getMessage() == "store unavailable"]
    assert part in {vars(record)["part"] for record in logged}
    assert not [record for record in caplog.records if record.exc_info]


def works_again(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    until(lambda: train(client).status_code == 202)
    until(lambda: client.get("/health/ready").json()["store"] == {})
    assert "store is back" in {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize("kind", ["full", "read_only", pytest.param("locked", marks=pytest.mark.slow)])
def test_a_sqlite_database_that_cannot_be_written_is_said_so(
    tmp_path: Path, pragmas: Pragmas, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.INFO)
    save_line(tmp_path)
    faults: dict[str, Fault] = {
        "full": lambda: pragmas.set("max_page_count=1", "max_page_count=1000000"),
        "read_only": lambda: pragmas.set("query_only=ON", "query_only=OFF"),
        "locked": lambda: locked(tmp_path / "store" / "torchloop.db"),
    }
    with serving(tmp_path, {"line": LINE}, store=tmp_path / "store") as client:
        assert train(client).status_code == 202
        with faults[kind]():
            until(lambda: train(client).status_code == 503)
            refused(client, train, 20)
            assert client.get("/jobs").status_code == 200
            shown_while(client, "writes", kind, caplog)
        works_again(client, caplog)


def test_a_full_disk_under_the_store_folder_is_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, no_recipes, store=tmp_path / "store") as client:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            refused(client, lambda asked: asked.post("/models/line/versions", content=b"x" * 2_000_000))
            shown_while(client, "files", "files", caplog)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert client.post("/models/line/versions", content=b"x" * 2_000_000).status_code == 422
        assert not list((tmp_path / "store").glob(".upload-*"))
        assert client.get("/health/ready").json()["store"] == {}


@contextmanager
def stopped(postgres: Postgres, _: str) -> Iterator[None]:
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def without_connections(postgres: Postgres, name: str) -> Iterator[None]:
    postgres.execute("ALTER ROLE few CONNECTION LIMIT 0")
    postgres.end_sessions(name)
    try:
        yield
    finally:
        postgres.execute("ALTER ROLE few CONNECTION LIMIT -1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "reads"),
    [
        (stopped, "unreachable", 503),
        (Postgres.frozen, "silent", 503),
        (Postgres.read_only, "read_only", 200),
        (without_connections, "unreachable", 503),
    ],
)
def test_a_postgresql_server_that_does_not_work_is_said_so(
    postgres: Postgres,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Postgres, str], AbstractContextManager[None]],
    kind: str,
    reads: int,
) -> None:
    caplog.set_level(logging.INFO)
    save_line(tmp_path)
    name = f"fault-{kind}-{reads}-{fault.__name__}"
    url = postgres.create_database(name, owner="few").replace("postgres@", "few@")
    with serving(tmp_path, {"line": LINE}, store=tmp_path / "store", database_url=url) as client:
        assert train(client).status_code == 202
        other = save_line(tmp_path / "other", slope=5).read_bytes()
        assert client.post("/models/line/versions", content=other).status_code == 201
        with fault(postgres, name):
            until(lambda: train(client).status_code == 503)
            refused(client, train, 20)
            refused(client, lambda asked: asked.post("/models/line/promote", json={"version": 2}))
            for path in ("/jobs", "/models/line/versions", "/v2/models/line"):
                found = answers(client, methodcaller("get", path), 10)
                assert {response.status_code for response in found} == {reads}
            shown_while(client, "writes", kind, caplog)
        works_again(client, caplog)
