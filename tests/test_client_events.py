"""The feed of all changes by the client and its command line: over a service, and over streams that break."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.client import AsyncClient, BadArgument, Client, Entry, Invalid, NotTorchloop, Unreachable, __main__
from service.settings import Settings
from service.store.database import Store
from service.store.feed import append
from tests.fakes import LINE, InProcess, save_line
from tests.line_versions import state
from tests.serving import line_recipes
from tests.sockets import listening
from tests.templates import migrated


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose version 1 is live, whose version 2 is registered, with a cancelled job in its feed."""
    folder = tmp_path_factory.mktemp("events")
    save_line(folder)
    settings = Settings(store=migrated(folder / "store"), data=folder)
    app = create_app(settings, {"line": LINE}, folder, line_recipes, partial(InProcess, {"line": LINE}))
    with listening(app) as (where, _):
        url = f"http://localhost:{where[1]}"
        httpx.post(f"{url}/models/line/versions", content=state(5)).raise_for_status()
        store = Store(folder / "store")
        with store.write() as connection:
            error = {"title": "Failed", "detail": "no \x1b[31mmemory\nleft"}
            told = {"job": "j1", "job_kind": "train", "attempt": 1, "state": "failed", "error": error}
            append(connection, "job.failed", "other", 1_800_000_000.25, told)
            window = {"samples": 900, "state": "drift", "since": 0, "until": 60}
            features = [{"name": "ink", "kind": "feature", "psi": 0.3, "limit": 0.1}]
            append(connection, "drift.begun", "line", 1_800_000_001.0, {"version": 1, "features": features, **window})
        store.close()
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


KINDS = ["version.registered", "version.promoted", "version.registered", "job.failed", "drift.begun"]


@pytest.mark.slow
def test_all_changes_that_there_are_end_and_are_typed(client: Client) -> None:
    found = list(client.events(follow=False))
    assert [entry.kind for entry in found] == KINDS
    last = found[3]
    assert last == Entry(last.id, "job.failed", "other", datetime.fromtimestamp(1_800_000_000.25, UTC), last.data)
    assert set(last.data) == {"job", "job_kind", "attempt", "state", "error"}
    assert list(client.events(follow=False, after=found[1].id)) == found[2:]
    assert list(client.events(follow=False, after=found[-1].id)) == []
    assert list(client.events(follow=False, after=10**12)) == []


@pytest.mark.slow
def test_models_and_kinds_are_chosen(client: Client) -> None:
    def kinds(**chosen: Any) -> list[str]:
        return [entry.kind for entry in client.events(follow=False, **chosen)]

    assert kinds(model="other") == ["job.failed"]
    assert kinds(kind="version.*") == kinds(kind="version") == KINDS[:3]
    assert kinds(kind=["job.failed", "drift.*"]) == KINDS[3:]
    assert kinds(kind="version.registered", model="other") == []
    for unknown in ("job.odd", "odd.*", "*", ""):
        with pytest.raises(Invalid, match=r"none of the feed: job\.queued"):
            kinds(kind=unknown)


@pytest.mark.slow
def test_the_asynchronous_client_does_the_same(url: str) -> None:
    async def use() -> list[Entry]:
        async with AsyncClient(url) as client:
            return [entry async for entry in client.events(follow=False, kind="job.*")]

    (found,) = asyncio.run(use())
    assert found.data["job"] == "j1"


def entry(number: int, **data: Any) -> bytes:
    told = json.dumps({"model": "m", "at": 1.5, **data})
    return f"id: {number}\nevent: job.running\ndata: {told}\n\n".encode()


class Streams:
    """A service whose connections send these pieces, or fail; a piece that is None cuts the connection."""

    def __init__(self, *connections: list[bytes | None] | Exception) -> None:
        self._connections = list(connections)
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        next_one = self._connections.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(next_one))

    @property
    def positions(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.seen]


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Parts of a stream."""

    def __init__(self, parts: list[bytes | None]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if part is None:
                raise httpx.ReadError("cut off")
            yield part

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


def over(handle: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://host", transport=httpx.MockTransport(handle), wait=lambda _: None)


def test_a_stream_that_is_cut_before_its_first_change_goes_on_where_it_began() -> None:
    """The position at which it began is an id without data: changes between two connections are not lost."""
    streams = Streams(
        [b"id: 7\n\n", b": still here\n\n", None],
        httpx.ConnectError("refused"),
        [b"id: 7\n\n", entry(9), b"id: 10\nevent: job.ru", None],
        [b"id: 9\n\n", entry(10)],
    )
    assert [one.id for one in islice(over(streams).events(), 2)] == [9, 10]
    assert streams.positions == [None, "7", "7", "9"]


def test_the_asynchronous_client_goes_on_too() -> None:
    streams = Streams([b"id: 0\n\n", None], [entry(1)])

    async def wait(_: float) -> None:
        """No time."""

    async def use() -> int:
        transport = httpx.MockTransport(streams)
        async with AsyncClient("http://host", transport=transport, wait=wait) as client:
            return (await anext(aiter(client.events(model="m", kind=["a.b", "c.*"])))).id

    assert asyncio.run(use()) == 1
    assert streams.positions == [None, "0"]
    assert [str(one.url.query, "ascii") for one in streams.seen] == ["model=m&kind=a.b&kind=c.%2A"] * 2


def test_an_answer_that_ends_early_is_asked_for_again_and_the_rest_is_not_repeated() -> None:
    streams = Streams([entry(1), None], [entry(2), b"id: 5\n\n"])
    assert [one.id for one in over(streams).events(after=0, follow=False)] == [1, 2]
    assert streams.positions == ["0", "1"]
    assert streams.seen[0].url.params["follow"] == "false"


def test_quiet_streams_that_are_cut_for_days_are_opened_again_and_a_service_that_stays_away_is_an_error() -> None:
    quiet: list[list[bytes | None] | Exception] = [[b"id: 3\n\n", None] for _ in range(50)]
    streams = Streams(*quiet, [entry(4)])
    assert next(over(streams).events()).id == 4
    with pytest.raises(Unreachable):
        next(over(Streams(*[httpx.ConnectError("refused")] * 20)).events())


@pytest.mark.parametrize(
    "content",
    [
        b"id: x\n\n", b"id: 1\nevent: a\ndata: {}\n\n", b"id: 1\nevent: a\ndata: []\n\n", b"id: 1\ndata: {}\n\n",
        b'id: 1\nevent: a\ndata: {"model": "m", "at": "noon"}\n\n', b'event: a\ndata: {"model": "m", "at": 1}\n\n',
        b'id: 1\nevent: a\ndata: {"model": "m", "at": 1e300}\n\n', b"id: 1\nevent: a\ndata: {\n\n",
    ],
)  # fmt: skip
def test_an_odd_entry_is_an_error(content: bytes) -> None:
    with pytest.raises(NotTorchloop, match="event"):
        next(over(Streams([content])).events())


def test_the_events_of_a_job_are_not_filtered() -> None:
    for chosen in ({"model": "m"}, {"kind": "job.*"}, {"follow": False}):
        with pytest.raises(BadArgument, match="leave out the job"):
            over(Streams()).events("j", **chosen)


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words -> exit status, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = __main__.main(["events", *words], {"TORCHLOOP_URL": url})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_change(run: Any) -> None:
    status, out, _ = run("--kind", "job.*", "--kind", "drift.begun")
    failed, begun = out.splitlines()
    assert status == 0
    assert failed == "4  2027-01-15 08:00:00Z  job.failed  other  job j1  attempt 1  no \\x1b[31mmemory left"
    assert begun == "5  2027-01-15 08:00:01Z  drift.begun  line  version 1  features ink  samples 900"
    assert run("--model", "none") == (0, "", "")
    assert run("--after", "4", "--kind", "drift")[1] == f"{begun}\n"


@pytest.mark.slow
def test_the_command_prints_an_object_for_each_change(run: Any) -> None:
    (line,) = run("--json", "--kind", "job.failed")[1].splitlines()
    found = json.loads(line)
    assert (found["id"], found["kind"], found["model"]) == (4, "job.failed", "other")
    assert found["at"] == "2027-01-15T08:00:00.250Z"
    assert found["data"]["error"]["title"] == "Failed"


@pytest.mark.slow
def test_odd_words_of_the_command_are_named(run: Any) -> None:
    status, _, err = run("--kind", "jobs")
    assert (status, err.count("\n")) == (1, 1)
    assert "kind 'jobs' is none of the feed" in err
    with pytest.raises(SystemExit) as exited:
        run("--after", "-1")
    assert exited.value.code == 2


@pytest.mark.slow
def test_the_command_follows(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    streams = Streams([b"id: 3\n\n", entry(4), None], [entry(5), None], *[httpx.ConnectError("refused")] * 7)
    client = partial(Client, transport=httpx.MockTransport(streams), wait=lambda _: None)
    monkeypatch.setattr(__main__, "Client", client)
    assert __main__.main(["events", "--follow", "--after", "3"], {"TORCHLOOP_URL": url}) == 1  # away for good
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["4", "5"]
    assert streams.positions[:3] == ["3", "4", "5"]


@pytest.mark.slow
def test_it_goes_on_with_the_changes_that_come(client: Client, url: str) -> None:
    """The first two are there, the third one comes while the stream is open. The last test: it adds to the feed."""
    stream = client.events(after=0, kind="version.registered")
    found = list(islice(stream, 2))
    version = httpx.post(f"{url}/models/line/versions", content=state(7)).raise_for_status().json()["version"]
    assert next(stream).data["version"] == version
    assert [entry.data["version"] for entry in found] == [1, 2]
