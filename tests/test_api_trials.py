"""Trials over HTTP, around the fake model: their life, refusals, history and events."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.durations import duration_of, seconds_in
from service.delivery.trials import Counts, Trials
from service.settings import Key
from service.store.database import Store
from tests.fakes import LINE, save_line
from tests.line_versions import promote, upload
from tests.problems import is_problem
from tests.serving import no_recipes, serving
from tests.trials import count, differ, err

SECRETS = {"reads": "predict", "trains": "train", "boss": "admin"}
BOSS = {"Authorization": "Bearer boss"}
STAGES = [{"shadow": 1.0, "for": "PT10M", "samples": 500}, {"share": 0.1, "for": "PT1H"}]
PATH = "/models/line/trial"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[TestClient]:
    """Version 1 is live, 2 to 4 are candidates."""
    save_line(folder / "shipped")
    keys = tuple(Key(scope=scope, secret=secret) for secret, scope in SECRETS.items())
    where: dict[str, Any] = {"store": folder / "store", "data": folder, "api_keys": keys}
    with serving(folder / "shipped", {"line": LINE, "bare": LINE}, no_recipes, **where) as client:
        client.headers.update(BOSS)
        for slope in (3, 4, 5):
            upload(client, slope)
        yield client


@pytest.fixture
def client(service: TestClient) -> Iterator[TestClient]:
    """The same service for each test, afterwards without an open trial and with version 1 live."""
    yield service
    service.post(f"{PATH}/abort")
    if service.get("/models/line").json()["live"] != 1:
        promote(service, 1)


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(folder / "store")
    yield store
    store.close()


def begin(client: TestClient, version: int = 2, stages: Any = STAGES, **body: Any) -> Any:
    return client.post(PATH, json={"version": version, "stages": stages, **body})


def events(client: TestClient, trial: str, **headers: str) -> Sequence[tuple[str, Any]]:
    text = client.get(f"/trials/{trial}/events", headers=headers).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks]


def test_a_trial_is_opened_and_described(client: TestClient) -> None:
    response = begin(client, key_header="X-User", max="P1D")
    trial = response.json()
    assert response.status_code == 201, trial
    assert client.get(response.headers["location"]).json()["id"] == trial["id"]
    assert (trial["model"], trial["version"], trial["live"], trial["state"], trial["stage"]) == (
        "line",
        2,
        1,
        "shadow",
        0,
    )
    assert trial["stages"] == [
        {"shadow": 1.0, "share": None, "for": "PT10M", "samples": 500},
        {"shadow": None, "share": 0.1, "for": "PT1H", "samples": 100},
    ]
    assert (trial["shadow"], trial["share"], trial["by"], trial["job"]) == (1.0, 0.0, "admin-3", None)
    assert (trial["key_header"], trial["max"], trial["when_undecided"]) == ("x-user", "P1D", "pause")
    assert trial["conditions"] == {"errors": {"alpha": 0.01}, "agreement": None, "latency": None, "accuracy": None}
    assert trial["evidence"]["samples_left"] == 500
    assert trial["waiting_for"] == []
    assert client.get(PATH).json()["id"] == trial["id"]


def test_without_stages_it_has_the_default_ones(client: TestClient) -> None:
    stages = client.post(PATH, json={"version": 2}).json()["stages"]
    assert [(one["shadow"], one["share"], one["for"], one["samples"]) for one in stages] == [
        (1.0, None, "PT10M", 500), (None, 0.05, "PT10M", 200), (None, 0.25, "PT10M", 500),
    ]  # fmt: skip


def test_it_is_paused_resumed_advanced_and_promoted_by_hand(client: TestClient) -> None:
    trial = begin(client, 3).json()["id"]

    def move(step: str, reason: str | None = None) -> tuple[str, int, float]:
        body = None if reason is None else {"reason": reason}
        response = client.post(f"{PATH}/{step}", json=body) if body else client.post(f"{PATH}/{step}")
        assert response.status_code == 200, response.text
        answer = response.json()
        return answer["state"], answer["stage"], answer["share"]

    assert move("pause", "a look at the log") == ("paused", 0, 0)
    assert move("resume") == ("shadow", 0, 0)
    assert move("advance") == ("canary", 1, 0.1)
    assert move("pause") == ("paused", 1, 0.1)
    assert move("advance", "good enough") == ("promoted", 1, 0)
    model = client.get("/models/line").json()
    assert (model["live"], model["loaded"]) == (3, 3)
    assert client.post("/predict/line", json={"inputs": [[10]]}).json()["predictions"] == [{"value": 41}]
    found = [one for one in client.get("/models/line/promotions").json()["promotions"] if one.get("trial") == trial]
    assert [(one["action"], one["version"], one["state"], one["by"]) for one in found] == [
        ("trial", 3, state, "admin-3") for state in ("shadow", "paused", "shadow", "canary", "paused", "promoted")
    ]
    history = client.get("/models/line/promotions").json()["promotions"]
    assert [one["at"] for one in history] == sorted(one["at"] for one in history)
    last = {name: history[-1][name] for name in ("version", "action", "by", "reason")}
    assert last == {"version": 3, "action": "promote", "by": f"trial {trial}", "reason": "good enough"}
    assert client.get("/models/line/promotions", params={"at": "2999-01-01T00:00:00Z"}).json()["live"] == 3
    before = client.get("/models/line/promotions", params={"at": history[-3]["at"]}).json()
    assert before["live"] != 3
    assert before["promotions"][-1]["trial"] == trial


def test_its_events_are_told_to_the_end_and_resumed(client: TestClient) -> None:
    trial = begin(client).json()["id"]
    client.post(f"{PATH}/abort", json={"reason": "enough"})
    first, last = events(client, trial)
    assert first[0] == "state"
    assert (first[1]["trial"], first[1]["state"], first[1]["reason"]) == (trial, "shadow", "opened")
    assert last[1] == {
        "trial": trial, "attempt": 2, "state": "aborted", "stage": 0, "version": 2, "by": "admin-3", "reason": "enough",
    }  # fmt: skip
    number = client.get(f"/trials/{trial}/events").text.split("id: ")[1].split("\n")[0]
    assert events(client, trial, **{"Last-Event-ID": number}) == [last]
    assert client.get(f"/trials/{trial}/events", headers={"Last-Event-ID": str(10**9)}).status_code == 204


def test_the_evidence_has_both_arms_the_conditions_and_differing_samples(client: TestClient, store: Store) -> None:
    trial = Trials(store).get(begin(client, conditions={"agreement": {"at_least": 0.9}}).json()["id"])
    fast = (0, 0, 0, 90, 10)
    count(trial, store, "live", Counts(requests=100, samples=200, errors=1, latency=fast))
    count(trial, store, "shadow", Counts(requests=90, samples=180, errors=3, dropped=10, agreed=170, differed=10))
    err(trial, store, "live", [1])
    err(trial, store, "shadow", [1, 2, 3])
    differ(trial, store, [f"p{number:02}" for number in range(30)])
    evidence = client.get(PATH).json()["evidence"]
    (stage,) = evidence["stages"]
    live, shadow = stage["arms"]["live"], stage["arms"]["shadow"]
    assert (live["requests"], live["samples"], live["errors"], live["keys"]) == (100, 200, 1, 0)
    assert live["latency_ms"] == {"p50": 0.778, "p95": 1.75, "p99": 2.35}
    assert (shadow["errors"], shadow["keys"], shadow["dropped"], shadow["latency_ms"]) == (3, 2, 10, None)
    assert (stage["agreed"], stage["differed"]) == (170, 10)
    errors, agreement = evidence["conditions"]
    assert (errors["condition"], errors["outcome"], errors["value"], errors["limit"]) == ("errors", "passed", 2, 100)
    assert 1 < errors["e_value"] < 100
    assert (agreement["outcome"], agreement["bound"]) == ("passed", 0.9)
    assert agreement["value"] == pytest.approx(170 / 180)
    assert evidence["samples_left"] == 320
    assert evidence["next"].endswith("and 320 samples of the candidate")
    assert [one["id"] for one in evidence["differences"]] == [f"p{number:02}" for number in range(20)]
    assert evidence["differences"][0]["candidate"] == {"value": 2}


def test_a_promotion_by_hand_aborts_it(client: TestClient) -> None:
    trial = begin(client, 4).json()["id"]
    assert promote(client, 2).status_code == 200
    ended = client.get(f"/trials/{trial}").json()
    assert (ended["state"], ended["reason"]) == ("aborted", "version 2 was promoted: promoted by hand")
    assert client.get(PATH).json()["evidence"]["next"] == ended["reason"]
    assert ended["finished_at"] is not None
    second = begin(client, 4).json()["id"]
    client.post("/models/line/rollback")
    assert client.get(f"/trials/{second}").json()["state"] == "aborted"


def test_a_broken_candidate_is_not_promoted_from_the_last_stage(client: TestClient, store: Store, folder: Path) -> None:
    number = upload(client, 9)
    sha256 = client.get(f"/models/line/versions/{number}").json()["sha256"]
    begin(client, number, [{"share": 0.5, "for": "PT1M"}])
    store.storage.checkpoint("line", sha256).unlink()  # the process that holds the candidate could go on without it
    assert is_problem(client.post(f"{PATH}/advance"), 409, "cannot be loaded, nothing was changed")
    assert client.get(PATH).json()["state"] == "canary"


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/models/none/trial", 404, "none"),
        ("GET", "/models/bare/trial", 404, "bare has had no trial: POST /models/bare/trial opens one"),
        ("GET", "/trials/none", 404, "unknown trial"),
        ("GET", "/trials/none/events", 404, "unknown trial"),
        ("POST", "/models/none/trial/advance", 404, "none"),
        *[
            ("POST", f"/models/bare/trial/{step}", 409, "no trial of bare is open")
            for step in ("advance", "pause", "resume", "abort")
        ],
    ],
)
def test_what_is_not_there_is_said(client: TestClient, method: str, path: str, status: int, words: str) -> None:
    assert is_problem(client.request(method, path), status, words)


def test_a_trial_in_another_state_is_a_conflict(client: TestClient) -> None:
    trial = begin(client).json()["id"]
    assert is_problem(begin(client, 3), 409, f"trial {trial} of version 2 of line is open")
    assert is_problem(client.post(f"{PATH}/resume"), 409, "is not paused: it is in its shadow stage 1")
    client.post(f"{PATH}/pause")
    assert is_problem(client.post(f"{PATH}/pause"), 409, "is paused already")


def test_the_candidate_must_be_there_and_not_live(client: TestClient) -> None:
    assert is_problem(begin(client, 1), 409, "version 1 of line is live already")
    assert is_problem(begin(client, 99), 404, "line has no version 99")
    assert is_problem(client.post("/models/none/trial", json={"version": 1}), 404, "none")
    assert is_problem(client.post("/models/bare/trial", json={"version": 1}), 404, "bare has no version 1")


SHADOW, SHARE = {"shadow": 0.5, "for": "PT1M"}, {"share": 0.1, "for": "PT1M"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "version"),
        ({"version": 2.0}, "version: must be a whole number"),
        ({"version": 2, "stage": []}, "did you mean stages?"),
        ({"version": 2, "stages": []}, "at least 1"),
        ({"version": 2, "stages": [{"share": 0.01 * (n + 1), "for": "PT1M"} for n in range(21)]}, "at most 20"),
        ({"version": 2, "stages": [{"for": "PT1M"}]}, "body.stages.0: must be an object with either shadow or share"),
        ({"version": 2, "stages": [{**SHADOW, "share": 0.1}]}, "body.stages.0: must be an object with either shadow"),
        ({"version": 2, "stages": ["10%"]}, "body.stages.0: must be an object with either shadow or share, such as"),
        ({"version": 2, "stages": [{"share": 0.1}]}, "body.stages.0.for: Field required"),
        ({"version": 2, "stages": [{"shadow": 0.1}]}, "body.stages.0.for: Field required"),
        ({"version": 2, "stages": [{**SHARE, "sample": 9}]}, "did you mean samples?"),
        ({"version": 2, "conditions": []}, "body.conditions: must be a JSON object"),
        ({"version": 2, "stages": [{"share": 0.6, "for": "PT1M"}]}, "less than or equal to 0.5"),
        ({"version": 2, "stages": [{"share": 0, "for": "PT1M"}]}, "greater than 0"),
        ({"version": 2, "stages": [{"share": "0.1", "for": "PT1M"}]}, "share"),
        ({"version": 2, "stages": [{"shadow": 1.1, "for": "PT1M"}]}, "less than or equal to 1"),
        ({"version": 2, "stages": [{"share": 0.1, "for": "10m"}]}, "body.stages.0.for: must be an ISO 8601 duration"),
        ({"version": 2, "stages": [{"share": 0.1, "for": "PT1M\n"}]}, "such as P7D, PT6H or PT10M"),
        ({"version": 2, "stages": [{"share": 0.1, "for": "PT0S"}]}, "more than 0 seconds"),
        ({"version": 2, "stages": [{"share": 0.1, "for": 60}]}, "for"),
        ({"version": 2, "stages": [{**SHARE, "samples": 0}]}, "samples"),
        ({"version": 2, "stages": [{**SHARE, "samples": True}]}, "samples: must be a whole number"),
        ({"version": 2, "stages": [SHARE, SHADOW]}, "shadow stages come before"),
        ({"version": 2, "stages": [{"share": 0.2, "for": "PT1M"}, SHARE]}, "shares must rise, not 0.2, 0.1"),
        ({"version": 2, "stages": [SHARE, SHARE]}, "shares must rise"),
        ({"version": 2, "key_header": "X User"}, "key_header: must be the name of a header, such as X-User"),
        ({"version": 2, "key_header": "X-User\n"}, "key_header: must be the name of a header, such as X-User"),
        ({"version": 2, "conditions": {"error": {}}}, "did you mean errors?"),
        ({"version": 2, "conditions": {"errors": {"alpha": 0}}}, "greater than 0"),
        ({"version": 2, "conditions": {"errors": {"alpha": 0.6}}}, "less than or equal to 0.5"),
        ({"version": 2, "conditions": {"agreement": {}}}, "at_least: Field required"),
        ({"version": 2, "conditions": {"agreement": {"at_least": 1.1}}}, "less than or equal to 1"),
        ({"version": 2, "conditions": {"latency": {"p95_at_most": -1}}}, "greater than 0"),
        (
            {"version": 2, "stages": [SHARE], "conditions": {"agreement": {"at_least": 1}}},
            "agreement is judged by a sh",
        ),
        ({"version": 2, "stages": [SHARE], "conditions": {"accuracy": {}}}, "accuracy is judged by a shadow"),
        (
            {"version": 2, "stages": [SHADOW], "conditions": {"latency": {"p95_at_most": 9}}},
            "latency is judged by a sh",
        ),
        ({"version": 2, "when_undecided": "promote"}, "when_undecided"),
        ({"version": 2, "max": "P1Y"}, "max: must be an ISO 8601 duration in days"),
    ],
)
def test_a_bad_order_names_what_is_wrong(client: TestClient, body: Any, words: str) -> None:
    assert is_problem(client.post(PATH, json=body), 422, words)


@pytest.mark.parametrize("body", [{"reason": 1}, {"reason": "\0"}, {"why": "x"}, {"reason": "x" * 1001}, []])
def test_a_bad_reason_is_refused(client: TestClient, body: Any) -> None:
    assert is_problem(client.post(f"{PATH}/abort", json=body), 422)


def test_what_is_no_json_or_too_large_is_refused(client: TestClient) -> None:
    assert is_problem(client.post(PATH, content=b"{", headers={"content-type": "application/json"}), 400)
    assert is_problem(client.post(PATH, content=b"x", headers={"content-type": "text/plain"}), 415)
    assert is_problem(client.post(PATH, content=b" " * 2_000_000, headers={"content-type": "application/json"}), 413)


def test_only_admins_change_trials_and_every_key_sees_them(client: TestClient) -> None:
    trial = begin(client).json()["id"]
    for secret in ("reads", "trains"):
        headers = {"Authorization": f"Bearer {secret}"}
        for step in ("", "/advance", "/pause", "/resume", "/abort"):
            assert is_problem(client.post(PATH + step, json={}, headers=headers), 403, "scope admin")
        for path in (PATH, f"/trials/{trial}"):
            assert client.get(path, headers=headers).status_code == 200
    assert client.get(PATH).json()["state"] == "shadow"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (600, "PT10M"),
        (0.5, "PT0.5S"),
        (86_400, "P1D"),
        (90_061, "P1DT1H1M1S"),
        (3_600, "PT1H"),
        (7325.25, "PT2H2M5.25S"),
    ],
)
def test_durations_are_written_as_they_are_read(seconds: float, written: str) -> None:
    assert duration_of(seconds) == written
    assert seconds_in(written) == seconds
