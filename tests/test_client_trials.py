"""Trials by the client and its command line, over the real application in process."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from service.client import AsyncClient, BadArgument, Client, Conflict, NotFound, Unavailable, __main__
from service.client.stages import DEFAULT, duration, of_stage, stages_in
from service.delivery.trials import DEFAULT_STAGES, Counts, Trials
from service.store.database import Store
from tests.fakes import LINE, save_line
from tests.line_versions import upload
from tests.serving import BASE_URL, no_recipes, over, serving
from tests.trials import count, differ, err

STAGES = "shadow 100% for 10m 500 samples, 5% for 1h"
SEEN = Counts(requests=40, samples=80, agreed=76, differed=4, latency=(0, 40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[TestClient]:
    """Version 1 is live, 2 is a candidate."""
    save_line(folder / "shipped")
    with serving(folder / "shipped", {"line": LINE}, no_recipes, store=folder / "store", data=folder) as app:
        upload(app, 3)
        yield app


@pytest.fixture
def client(app: TestClient) -> Iterator[Client]:
    """Without an open trial, before and after."""
    app.post("/models/line/trial/abort")
    with Client(BASE_URL, transport=over(app)) as client:
        yield client
    app.post("/models/line/trial/abort")


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(folder / "store")
    yield store
    store.close()


@pytest.fixture
def run(client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words -> exit status, standard output, standard error."""
    transport = client._http._transport

    def in_process(url: str, **options: Any) -> Client:
        return Client(url, transport=transport, **options)

    monkeypatch.setattr(__main__, "Client", in_process)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = __main__.main(["trial", "line", *words], {"TORCHLOOP_URL": BASE_URL})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("shadow 100% for 10m 500 samples", [{"shadow": 1.0, "for": "PT10M", "samples": 500}]),
        ("5% for 1h30m, canary 12.5 % for PT1H", [{"share": 0.05, "for": "PT1H30M"}, {"share": 0.125, "for": "PT1H"}]),
        ("Shadow 10% for 1d\n  1 sample", [{"shadow": 0.1, "for": "P1D", "samples": 1}]),
    ],
)
def test_stages_are_read_as_people_write_them(text: str, stages: Any) -> None:
    assert stages_in(text) == stages


@pytest.mark.parametrize("text", ["", "5%", "for 10m", "5% for", "5% for ever", "mirror 5% for 1h", "5% for 1h,"])
def test_a_text_that_describes_no_stage_is_an_error_that_shows_how(text: str) -> None:
    with pytest.raises(BadArgument, match="write"):
        stages_in(text)


def test_durations_and_stages_are_written_as_they_are_read() -> None:
    assert [duration(text) for text in ("90s", "2d", "1d12h", "0.5s", "P2D", "PT5M")] == [
        "PT90S", "P2D", "P1DT12H", "PT0.5S", "P2D", "PT5M",
    ]  # fmt: skip
    canary: Any = {"shadow": None, "share": 0.05, "for": "P1DT12H", "samples": 100}
    shadow: Any = {**canary, "shadow": 1.0, "share": None}
    assert of_stage(canary) == "5% for 1d12h 100 samples"
    assert of_stage(shadow) == "shadow 100% for 1d12h 100 samples"


def test_a_trial_is_opened_moved_and_followed_to_its_end(client: Client) -> None:
    trial = client.open_trial("line", 2, STAGES, key_header="X-User", conditions={"latency": {"p95_at_most": 50}})
    assert (trial["state"], trial["stages"][1]["share"], trial["key_header"]) == ("shadow", 0.05, "x-user")
    assert trial["conditions"]["latency"] == {"p95_at_most": 50}
    with pytest.raises(Conflict, match="trial"):
        client.open_trial("line", 2)
    assert client.pause_trial("line", "lunch")["state"] == "paused"
    assert client.resume_trial("line")["state"] == "shadow"
    assert client.advance_trial("line")["share"] == 0.05
    assert client.abort_trial("line", "enough")["finished_at"] is not None
    assert client.trial("line")["reason"] == client.trial_by_id(trial["id"])["reason"] == "enough"
    events = list(client.trial_events(trial["id"]))
    assert [event.data["state"] for event in events] == ["shadow", "paused", "shadow", "canary", "aborted"]
    assert events[-1].final
    assert list(client.trial_events(trial["id"], after=events[-1].id)) == []
    with pytest.raises(NotFound):
        client.trial_by_id("none")


def test_the_asynchronous_client_does_the_same(app: TestClient, client: Client) -> None:
    async def use() -> list[str]:
        async with AsyncClient(BASE_URL, transport=over(app)) as other:
            trial = await other.open_trial("line", 2, [{"share": 0.1, "for": "PT1H"}], max_duration="1d")
            assert (trial["max"], trial["when_undecided"]) == ("P1D", "pause")
            await other.abort_trial("line")
            states = [event.data["state"] async for event in other.trial_events(trial["id"])]
            last = [event async for event in other.trial_events(trial["id"], after=10**9)]
            return [*states, *(event.kind for event in last)]

    assert asyncio.run(use()) == ["canary", "aborted"]


def test_a_change_is_sent_once(client: Client) -> None:
    sent: list[httpx.Request] = []

    def busy(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(503, headers={"retry-after": "0"}, json={"title": "Store unavailable", "detail": "x"})

    with Client(BASE_URL, transport=httpx.MockTransport(busy), wait=lambda _: None) as other:
        for change in (other.advance_trial, other.pause_trial, other.resume_trial, other.abort_trial):
            with pytest.raises(Unavailable):
                change("line")
    assert len(sent) == 4


def test_the_command_opens_shows_moves_and_follows_a_trial(run: Any, client: Client, store: Store) -> None:
    asked = ["--key-header", "X-User", "--alpha", "0.05", "--agreement", "0.9", "--p95-ms", "50", "--accuracy", "0.01"]
    status, out, err_ = run("2", "--stages", STAGES, *asked, "--max", "2d", "--when-undecided", "roll_back")
    assert (status, err_) == (0, "")
    assert "version 2, live is version 1: shadow, stage 1 of 2" in out
    assert "it lasts at most 2d; undecided, it is to roll back" in out
    trial = Trials(store).get(client.trial("line")["id"])
    assert trial.conditions.latency is not None
    assert trial.conditions.accuracy is not None
    count(trial, store, "shadow", SEEN)
    count(trial, store, "live", SEEN)
    differ(trial, store, ["p1"])
    err(trial, store, "shadow", [1])

    lines = run()[1].splitlines()
    header = lines.index(next(line for line in lines if line.split()[:2] == ["stage", "requests"]))
    assert lines[header + 1].startswith("1>     shadow 100% for 10m 500 samples  40 ")
    assert lines[header + 1].split()[7:11] == ["40", "80", "0", "1"]
    assert "76 of 80" in lines[header + 1]
    assert lines[header + 2].split()[:3] == ["live", "40", "80"]
    assert lines[header + 3].split()[0] == "2"
    assert any(line.startswith("agreement") and "passed" in line for line in lines)
    assert any(line.split() == ["p1[0]", "value", "1", "value", "2"] for line in lines)
    assert json.loads(run("--json")[1])["id"] == trial.id

    assert run("pause", "--reason", "lunch")[0] == 0
    assert "paused: lunch" in run()[1]
    assert run("resume")[0] == run("advance")[0] == run("abort", "--reason", "enough")[0] == 0
    status, out, _ = run("--follow")
    assert status == 1
    assert out.splitlines()[-1].endswith("aborted, stage 2: enough")
    assert json.loads(run("--follow", "--json")[1].splitlines()[0])["state"] == "shadow"
    assert "live was version 1" in run()[1]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["advance"], 1, "no trial of line is open"),
        (["9"], 1, "line has no version 9"),
        (["2", "--stages", "half"], 1, "'half' is not a stage"),
        (["2", "--stages", "80% for 1h"], 1, "less than or equal to 0.5"),
        (["2", "--max", "soon"], 1, "'soon' is not a duration"),
    ],
)
def test_an_error_of_the_command_is_one_line(run: Any, words: list[str], status: int, says: str) -> None:
    ended, out, said = run(*words)
    assert (ended, out, len(said.splitlines())) == (status, "", 1)
    assert says in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fly"], "neither a version nor one of advance"),
        (["--stages", STAGES], "--stages opens a trial"),
        (["abort", "--key-header", "X-User"], "--key-header opens a trial"),
        (["2", "--reason", "why"], "--reason is for one of advance"),
    ],
)
def test_odd_words_exit_with_2(run: Any, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(*words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_the_fault_of_a_candidate_is_an_event(run: Any, client: Client, store: Store) -> None:
    trial = Trials(store).get(client.open_trial("line", 2, STAGES)["id"])
    Trials(store).note_fault(trial, "load", "no such file", now=1.0)  # the service's leader rolls it back
    assert any(line.endswith("fault, load: no such file") for line in run("--follow")[1].splitlines())


def test_the_help_says_the_stages_that_a_trial_has_by_default() -> None:
    found = [(one.get("shadow") or one["share"], one["for"], one["samples"]) for one in stages_in(DEFAULT)]
    assert found == [(one.shadow or one.share, f"PT{one.for_s / 60:g}M", one.samples) for one in DEFAULT_STAGES]
