"""Datasets by the client and its command line, over the real application in process."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.client import AsyncClient, BadArgument, Client, Conflict, Invalid, NotFound, Unreachable, __main__
from service.store.database import Store
from tests.dataset_service import made, recipes, refusal, work
from tests.fakes import LINE
from tests.serving import BASE_URL, over, serving

CONTENT = b"x,value\n" + b"1,3\n" * 1000


@pytest.fixture
def app(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path / "none", {"line": LINE}, recipes, store=tmp_path / "store") as app:
        yield app


@pytest.fixture
def store(app: TestClient, tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "field.csv"
    path.write_bytes(CONTENT)
    return path


class Cut(httpx.BaseTransport):
    """A network that breaks off: `faults` says for each part that is sent how many of its bytes arrive; None: all."""

    def __init__(self, app: TestClient, faults: list[int | None]) -> None:
        self._inner = over(app)
        self._faults = faults
        self.offsets: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PUT":
            return self._inner.handle_request(request)
        self.offsets.append(int(request.url.params["offset"]))
        fault = self._faults.pop(0) if self._faults else None
        if fault is None:
            return self._inner.handle_request(request)
        if fault:
            part = httpx.Request("PUT", request.url, content=request.read()[:fault])
            assert self._inner.handle_request(part).status_code == 200
        raise httpx.ReadError("cut", request=request)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.dataset_uploads.PART_BYTES", 1000)


def test_a_file_is_sent_in_parts_and_shown_as_it_goes(
    app: TestClient, store: Store, file: Path, small_parts: None
) -> None:
    told: list[tuple[int, int]] = []
    with Client(BASE_URL, transport=over(app)) as client:
        job = client.datasets.upload(
            "line", "field", file, label_column="value", on_progress=lambda *sent: told.append(sent)
        )
        assert (job["kind"], job["dataset"]) == ("ingest", "field")
        size = len(CONTENT)
        assert told == [*((sent, size) for sent in range(0, size, 1000)), (size, size)]
        orders: list[Any] = []
        work(store, lambda order: orders.append(order) or made(order))  # type: ignore[func-returns-value]
        assert orders[0].source.read_bytes() == CONTENT
        assert orders[0].options.label_column == "value"
        assert client.follow(job["id"])["dataset"] == "field@1"
        assert [found["dataset"] for found in client.datasets.list("line")] == ["field@1"]
        assert client.datasets.get("line", "field@1")["rejected"] == 2
        assert len(client.datasets.report("line", "field@1")["refused"]) == 2
        assert client.submit("line", dataset="field")["dataset"] == "field@1"
        with pytest.raises(Conflict, match="uses field@1"):
            client.datasets.delete("line", "field@1")
        assert [found["id"] for found in client.jobs(kind="ingest")["jobs"]] == [job["id"]]
        (training,) = client.jobs(kind="train")["jobs"]
        client.cancel(training["id"])
        client.datasets.delete("line", "field@1", erase=True)
        assert client.datasets.get("line", "field@1")["erased"]
        with pytest.raises(NotFound):
            client.submit("line", dataset="field")


def test_an_upload_goes_on_where_a_part_was_cut(app: TestClient, store: Store, file: Path, small_parts: None) -> None:
    network = Cut(app, [0, 300, None, 700, 0])
    waits: list[float] = []
    with Client(BASE_URL, transport=network, retries=1, wait=waits.append) as client:
        client.datasets.upload("line", "field", file)
    assert network.offsets[:6] == [0, 0, 300, 1300, 2000, 2000]
    assert waits == [1.0, 2.0, 1.0, 1.0]
    (original,) = (store.folder / "datasets/line/originals").iterdir()
    assert original.name == hashlib.sha256(CONTENT).hexdigest()


def test_an_upload_that_breaks_off_names_its_id_and_is_resumed(app: TestClient, file: Path, small_parts: None) -> None:
    begun: list[str] = []
    with (
        Client(BASE_URL, transport=Cut(app, [None, 0, 0]), retries=1, wait=lambda _: None) as client,
        pytest.raises(Unreachable) as failed,
    ):
        client.datasets.upload("line", "field", file, on_begin=begun.append)
    assert str(failed.value).endswith(f"upload the file again and resume {begun[0]}")
    network = Cut(app, [])
    with Client(BASE_URL, transport=network) as client:
        job = client.datasets.upload("line", "field", file, resume=begun[0])
        assert network.offsets[0] == 1000
        assert client.datasets.upload("line", "field", file, resume=begun[0])["id"] == job["id"]
        file.write_bytes(CONTENT[:-1])
        with pytest.raises(BadArgument, match=f"is of a file of {len(CONTENT)} bytes; this one has {len(CONTENT) - 1}"):
            client.datasets.upload("line", "field", file, resume=begun[0])


def test_files_and_names_that_cannot_be_sent_are_named(app: TestClient, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()
    with Client(BASE_URL, transport=over(app)) as client:
        with pytest.raises(BadArgument, match=r"empty\.csv is empty"):
            client.datasets.upload("line", "field", empty)
        with pytest.raises(BadArgument, match="pack a folder of pictures as zip or tar"):
            client.datasets.upload("line", "field", tmp_path)
        for reference in ("field", "field@", "field@x"):
            with pytest.raises(BadArgument, match="write it as name@version"):
                client.datasets.get("line", reference)
        with pytest.raises(Invalid):
            client.submit("line", dataset="Field")


def test_the_async_client_uploads_in_the_same_way(app: TestClient, file: Path, small_parts: None) -> None:
    async def main() -> None:
        async with AsyncClient(BASE_URL, transport=over(app)) as client:
            job = await client.datasets.upload("line", "field", file)
            assert job["kind"] == "ingest"
            assert await client.datasets.list("line") == []
            with pytest.raises(BadArgument):
                await client.datasets.upload("line", "field", file.parent)

    asyncio.run(main())


@pytest.fixture
def run(app: TestClient, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command-line client over the application. Returns its exit status."""

    def client(_: str, **options: Any) -> Client:
        return Client(BASE_URL, transport=over(app), **options)

    monkeypatch.setattr(__main__, "Client", client)
    return lambda *words: __main__.main(words, {}, prog="torchloop")


def test_the_command_data_adds_lists_reports_and_deletes(
    run: Any, store: Store, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "add", "line", "field", str(file), "--no-wait", "--allow-rejected", "0.5") == 0
    shown = capsys.readouterr()
    assert "if it breaks off, go on with --resume" in shown.err
    assert "queued" in shown.out
    work(store, made)
    assert run("data", "list", "line") == 0
    assert "field@1" in capsys.readouterr().out
    assert run("data", "report", "line", "field@1") == 0
    report = capsys.readouterr().out
    assert "12 rows, 10 good, 2 refused" in report
    assert "warning: few rows" in report
    assert "Not a number: x must be a number" in report
    assert "and 1 more refused rows" in report
    assert run("submit", "line", "--dataset", "field", "--json") == 0
    job = json.loads(capsys.readouterr().out)
    assert job["dataset"] == "field@1"
    assert run("data", "delete", "line", "field@1") == 1
    assert "uses field@1" in capsys.readouterr().err
    assert run("cancel", job["id"]) == 0
    assert run("data", "delete", "line", "field@1", "--erase") == 0
    assert "field@1 is deleted" in capsys.readouterr().out
    assert run("data", "list", "line", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_command_data_add_ends_with_1_if_the_file_is_refused(
    run: Any, store: Store, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = Client.follow

    def done(client: Client, job_id: str, show: Any = None) -> Any:
        work(store, refusal())
        return follow(client, job_id, show)

    monkeypatch.setattr(Client, "follow", done)
    assert run("data", "add", "line", "field", str(file)) == 1
    shown = capsys.readouterr().out
    assert "failed: row 3 is bad" in shown
    assert "12 rows, 10 good, 2 refused" in shown
