"""The client, over the real application in process; and over answers made up where a network must misbehave."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from service import client as torchloop
from service.client import AsyncClient, Call, Client, Event
from service.client.events import Feed
from tests.fakes import LINE, Line, save_line
from tests.serving import BASE_URL, npy, over, png, serving
from tests.written_pages import number

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Client]:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as app, Client(BASE_URL, transport=over(app)) as client:
        yield client


def answering(handle: Handler, waits: list[float] | None = None, **options: Any) -> Client:
    waited: list[float] = [] if waits is None else waits
    return Client("http://x", transport=httpx.MockTransport(handle), wait=waited.append, **options)


def problem(status: int, title: str = "T", detail: str = "D", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json", **headers})


def test_every_kind_of_input_gives_the_same_answer(tmp_path: Path) -> None:
    pixels = drawn_seven()
    for name, content in (("seven.png", png(pixels)), ("seven.npy", npy(pixels[None]))):
        (tmp_path / name).write_bytes(content)
    with serving(store=tmp_path / "store") as app, Client(BASE_URL, transport=over(app)) as client:
        for data in (
            tmp_path / "seven.png", str(tmp_path / "seven.npy"), png(pixels), npy(pixels[None]),
            Image.fromarray(pixels), pixels[None], [pixels], pixels[None].tolist(), [tmp_path / "seven.png"],
        ):  # fmt: skip
            (prediction,) = client.predict("mnist", data)["predictions"]
            assert prediction["label"] == 7
        several = client.predict("mnist", [tmp_path / "seven.png", png(pixels), Image.fromarray(pixels), b"?"])
        assert [entry.get("label") for entry in several["predictions"]] == [7, 7, 7, None]
        number([pixels] * 2)[0].save(tmp_path / "number.png")
        segments = client.predict("mnist", tmp_path / "number.png", segment=True)["predictions"]
        assert [(entry["label"], len(entry["box"])) for entry in segments] == [(7, 4), (7, 4)]


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [1.0, float("nan")], "\ud800", object(), {1, 2}],
    ids=lambda value: type(value).__name__,
)
def test_a_hyperparameter_that_json_does_not_have_is_an_error_that_names_it(value: Any) -> None:
    with (
        pytest.raises(torchloop.TorchloopError, match=r"config: 'lr'(\[1\])? cannot be sent as JSON"),
        answering(lambda _: pytest.fail("a request was sent")) as client,
    ):
        client.train("line", {"epochs": 1, "lr": value})


def test_models_versions_promotion_and_rollback(line: Client) -> None:
    import torch  # noqa: PLC0415 - the client itself needs none

    file = io.BytesIO()
    torch.save(Line(slope=5).state_dict(), file)
    added = line.register("line", file.getvalue())
    assert [version["live"] for version in line.versions("line")] == [True, False]
    assert line.version("line", added["version"]) == added
    assert line.promote("line", 2) == {"model": "line", "live": 2, "previous": 1, "waiting_for": []}
    assert line.predict("line", [[1.0]])["predictions"] == [{"value": 6.0}]
    assert line.predict("line", [[1.0]], version=1)["predictions"] == [{"value": 3.0}]
    assert line.rollback("line")["live"] == 1
    assert [row["action"] for row in line.promotions("line")["promotions"]] == ["promote", "promote", "rollback"]
    assert set(torch.load(io.BytesIO(line.download("line", 2)), weights_only=True)) == {"slope", "offset"}
    assert [model["name"] for model in line.models()] == [line.model("line")["name"]] == ["line"]
    assert line.ready()["status"] == "ready"
    (node,) = line.nodes()
    assert (node["address"], node["state"], node["processes"]) == ("127.0.0.1:8000", "serving", 1)


def test_jobs_are_queued_listed_followed_and_cancelled(line: Client) -> None:
    job = line.train("line", {"epochs": 3})
    assert (job["state"], job["config"]) == ("queued", {"epochs": 3})
    assert line.jobs(model="line", state="queued")["jobs"] == [line.job(job["id"])] == [job]
    assert line.cancel(job["id"])["state"] == "cancelled"
    events = list(line.events(job["id"]))
    assert [event.data["state"] for event in events] == ["queued", "cancelled"]
    assert list(line.events(job["id"], after=events[0].id)) == events[1:]
    shown: list[Event] = []
    assert line.follow(job["id"], shown.append)["state"] == "cancelled"
    assert shown == events
    assert line.job_history(job["id"]) == []
    with pytest.raises(torchloop.NotFound, match="has no plot"):
        line.plot(job["id"])


def test_a_refusal_is_of_the_class_of_its_status(line: Client) -> None:
    with pytest.raises(torchloop.NotFound, match="unknown model 'nope'; known are line") as refused:
        line.predict("nope", [[1.0]])
    assert refused.value.status == 404
    with pytest.raises(torchloop.Invalid, match="depth: unknown hyperparameter"):
        line.train("line", {"depth": 3})
    with pytest.raises(torchloop.Conflict, match="roll"):
        line.rollback("line")
    with pytest.raises(torchloop.UnsupportedMediaType):
        line.predict("line", b"a picture")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, torchloop.Malformed), (401, torchloop.Unauthorized), (403, torchloop.Forbidden),
        (413, torchloop.TooLarge), (418, torchloop.Refused), (429, torchloop.Overloaded),
        (500, torchloop.ServiceFailed),
        (503, torchloop.Unavailable), (504, torchloop.Late),
    ],
)  # fmt: skip
def test_every_status_has_its_class(status: int, kind: type[torchloop.Refused]) -> None:
    with pytest.raises(torchloop.Refused) as refused:
        answering(lambda _: problem(status, "Title", "detail")).models()
    assert (type(refused.value), str(refused.value)) == (kind, "Title: detail")
    headers = {"content-type": "application/problem+json"}
    for content in (b"<html>", b"[]", b'{"title": "cut o'):
        damaged = httpx.Response(status, content=content, headers=headers)
        with pytest.raises(kind, match=f"status {status}"):
            answering(outcomes(damaged, seen=[]), retries=0).models()


class Packed(httpx.SyncByteStream):
    """No gzip, whatever the head says."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"{}"


def test_an_answer_of_something_else_says_so() -> None:
    with pytest.raises(torchloop.TorchloopError, match="not Torchloop"):
        answering(lambda _: httpx.Response(200, text="<html>")).models()
    with pytest.raises(torchloop.Unreachable, match="decompress"):
        answering(lambda _: httpx.Response(200, stream=Packed(), headers={"content-encoding": "gzip"})).models()


def outcomes(*answers: httpx.Response | Exception, seen: list[httpx.Request]) -> Handler:
    """Each answer in turn."""
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


def test_a_full_queue_is_asked_again_when_it_says_so() -> None:
    seen: list[httpx.Request] = []
    waits: list[float] = []
    full = problem(429, **{"retry-after": "2"})
    good = httpx.Response(200, json={"models": []})
    client = answering(outcomes(full, problem(503, **{"retry-after": "999"}), good, seen=seen), waits)
    assert client.models() == []
    assert (len(seen), waits) == (3, [2.0, 10.0])
    with pytest.raises(torchloop.Overloaded):
        answering(outcomes(full, full, seen=seen), retries=1).models()
    with pytest.raises(torchloop.Unavailable):  # nothing said when to come again
        answering(outcomes(problem(503), seen=seen)).models()


def test_a_training_order_is_repeated_under_one_key_only() -> None:
    seen: list[httpx.Request] = []
    broken = httpx.ReadError("broken")
    answering(
        outcomes(broken, problem(429, **{"retry-after": "0"}), httpx.Response(202, json={"id": "j"}), seen=seen)
    ).submit(
        "m",
    )
    keys = {request.headers["idempotency-key"] for request in seen}
    assert (len(seen), len(keys)) == (3, 1)
    answering(outcomes(httpx.Response(202, json={"id": "j"}), seen=seen)).submit("m")
    assert seen[-1].headers["idempotency-key"] not in keys


def test_a_rollback_is_repeated_with_its_key_so_that_it_goes_back_once() -> None:
    seen: list[httpx.Request] = []
    done = {"model": "m", "live": 1, "previous": 2}
    answers = outcomes(httpx.ReadError("broken"), httpx.Response(200, json=done), seen=seen)
    assert answering(answers).rollback("m") == done
    keys = {request.headers["idempotency-key"] for request in seen}
    assert (len(seen), len(keys)) == (2, 1)
    answering(outcomes(httpx.Response(200, json=done), seen=seen)).rollback("m")
    assert seen[-1].headers["idempotency-key"] not in keys
    answering(outcomes(httpx.Response(200, json=done), seen=seen)).rollback("m", idempotency_key="mine")
    assert seen[-1].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    "call",
    [torchloop.calls.promote("m", 1), torchloop.calls.register("m", b"x")],
)
def test_what_changes_the_service_is_never_repeated(call: Call[Any]) -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(torchloop.Unavailable):
        answering(outcomes(problem(503, **{"retry-after": "1"}), seen=seen)).execute(call)
    with pytest.raises(torchloop.Unreachable, match="broken"):
        answering(outcomes(httpx.ReadError("broken"), seen=seen)).execute(call)
    assert len(seen) == 2


def test_a_service_that_does_not_run_says_how_to_start_it() -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(torchloop.Unreachable, match=r"http://x \(refused\): start the service \(make serve"):
        answering(outcomes(httpx.ConnectError("refused"), seen=seen)).models()
    assert len(seen) == 1


def told(number: int, kind: str, data: str) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n".encode()


class Breaking(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream that ends in the middle of an event."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        raise httpx.ReadError("cut off")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


def broken_stream(seen: list[httpx.Request]) -> Handler:
    """A stream that breaks, a service that is away, one that ends too early, and the rest."""
    running = httpx.Response(200, json={"state": "running"})
    return outcomes(
        httpx.Response(200, stream=Breaking(told(1, "state", '{"state": "queued"}'), b": here\n\n", b"id: 2\nev")),
        httpx.ConnectError("refused"),
        httpx.Response(200, content=told(2, "progress", '{"step": 1}')),
        running,
        httpx.Response(200, content=told(3, "state", '{"state": "failed"}')),
        seen=seen,
    )


TAR = {"content-type": "application/x-tar"}


def test_a_download_is_written_as_it_arrives_and_begun_again_if_it_breaks(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    broken = httpx.Response(200, headers=TAR, stream=Breaking(b"half of a longer file"))
    answers = outcomes(
        problem(503, **{"retry-after": "1"}), broken, httpx.Response(200, headers=TAR, content=b"whole"), seen=seen
    )
    path = tmp_path / "m-1.tar"
    assert answering(answers).save("m", 1, path, artifacts=True) == path
    assert path.read_bytes() == b"whole"
    assert [str(request.url.query, "ascii") for request in seen] == ["artifacts=true"] * 3


def test_what_is_no_checkpoint_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m-1.pt"
    for answer in (httpx.Response(200, headers={"content-type": "text/html"}, content=b"<p>"), problem(404)):
        with pytest.raises((torchloop.NotTorchloop, torchloop.NotFound)):
            answering(outcomes(answer, seen=[])).save("m", 1, path)
    assert not path.exists()
    answer = httpx.Response(200, headers={"content-type": "application/octet-stream"}, content=b"weights")
    with pytest.raises(OSError, match="No such file"):
        answering(outcomes(answer, seen=[])).save("m", 1, tmp_path / "no" / "m.pt")


def test_the_asynchronous_client_writes_a_download_too(tmp_path: Path) -> None:
    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=TAR, content=b"whole")

    async def go() -> Path:
        async with AsyncClient(transport=httpx.MockTransport(handle)) as client:
            return await client.save("m", 1, str(tmp_path / "m-1.tar"), artifacts=True)

    assert asyncio.run(go()).read_bytes() == b"whole"


def test_events_go_on_after_the_last_one_seen_when_the_stream_breaks() -> None:
    seen: list[httpx.Request] = []
    waits: list[float] = []
    events = list(answering(broken_stream(seen), waits).events("j"))
    assert [(event.id, event.kind, event.final) for event in events] == [
        (1, "state", False), (2, "progress", False), (3, "state", True),
    ]  # fmt: skip
    assert [request.headers.get("last-event-id") for request in seen] == [None, "1", "1", None, "2"]
    assert waits == [0.5, 1.0, 0.5]


@pytest.mark.parametrize("after", ["1", -1, 1.5, True, "\0"])
def test_events_go_on_after_the_id_of_an_event_only(after: Any) -> None:
    client = answering(outcomes(seen=[]))
    for stream in (client.events, client.trial_events):
        with pytest.raises(torchloop.BadArgument, match=r"after must be (the id of the last event|a whole number)"):
            stream("j", after=after)


def test_only_a_named_job_can_be_followed() -> None:
    with pytest.raises(torchloop.BadArgument, match="job_id must be text"):
        answering(outcomes(seen=[])).follow(None)  # type: ignore[arg-type]

    async def go() -> None:
        async with AsyncClient(transport=httpx.MockTransport(outcomes(seen=[]))) as client:
            await client.follow(None)  # type: ignore[arg-type]

    with pytest.raises(torchloop.BadArgument, match="job_id must be text"):
        asyncio.run(go())


def test_events_of_a_service_that_stays_away_end_in_an_error() -> None:
    waits: list[float] = []
    client = answering(outcomes(*[httpx.ConnectError("refused")] * 20, seen=[]), waits)
    with pytest.raises(torchloop.Unreachable):
        list(client.events("j"))
    assert len(waits) == 6


def test_a_stream_that_is_cut_for_days_is_opened_again() -> None:
    feed = Feed()
    assert [feed.pause_s(None) for _ in range(2000)][-1] == 10


def test_the_async_client_does_the_same() -> None:
    seen: list[httpx.Request] = []
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def use(handle: Handler) -> tuple[list[Event], Any]:
        transport = httpx.MockTransport(handle)
        async with AsyncClient("http://x", key="k", transport=transport, wait=wait) as client:
            return [event async for event in client.events("j")], client

    events, _ = asyncio.run(use(broken_stream(seen)))
    assert [event.id for event in events] == [1, 2, 3]
    assert seen[0].headers["authorization"] == "Bearer k"
    assert waits == [0.5, 1.0, 0.5]


def test_async_calls_are_awaited_and_retried(tmp_path: Path) -> None:
    save_line(tmp_path)

    async def use(app: TestClient) -> None:
        async with AsyncClient(BASE_URL, transport=over(app)) as client:
            first, second = await asyncio.gather(
                client.predict("line", [[1.0]]),
                client.predict("line", np.ones((1, 1))),
            )
            assert {**first, "id": ""} == {**second, "id": ""}
            assert first["id"] != second["id"]
            job = await client.train("line")
            await client.cancel(job["id"])
            assert (await client.follow(job["id"]))["state"] == "cancelled"
            with pytest.raises(torchloop.NotFound):
                await client.model("nope")

    with serving(tmp_path, {"line": LINE}) as app:
        asyncio.run(use(app))
