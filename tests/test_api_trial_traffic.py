"""Requests while a trial is open: who answers them, what is counted, and what a shadow does. Over a real socket."""

from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from models.checkpoints.storage import Storage
from service.delivery.trials import Agreement, Conditions, Trials
from tests.open_trials import opened, stage, trial_of
from tests.trial_traffic import Traffic, add_line, add_scaled, is_chosen, loaded_of, served
from tests.waiting import until

KEYS = [f"user-{number}" for number in range(60)]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with served(tmp_path_factory.mktemp("traffic") / "store") as found:
        yield found


@pytest.mark.slow
def test_a_canary_answers_its_keys_in_every_shape_and_says_its_version(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 3)
    trial = traffic.open(trial_of([stage(share=0.3), stage(share=0.5)], version=candidate, key_header="X-User"))

    def answered(key: str) -> set[int]:
        fast = traffic.ask(1.0, **{"X-User": key})
        slow = traffic.client.post("/predict/line", content=iter([b'{"inputs": [[1.0]]}']), headers={
            "X-User": key, "Content-Type": "application/json"})  # fmt: skip
        other = traffic.ask_v2(1.0, **{"X-User": key})
        assert fast.json()["predictions"][0]["value"] == {1: 3.0, candidate: 4.0}[fast.json()["version"]]
        assert fast.headers["x-model-version"] == str(fast.json()["version"])
        assert fast.headers["x-prediction-id"].endswith(f"-{fast.json()['version']}")
        return {fast.json()["version"], slow.json()["version"], int(other.json()["model_version"])}

    def explained(key: str) -> tuple[int, list[float]]:
        found = traffic.client.post("/explain/line", json={"inputs": [[1.0]]}, headers={"X-User": key})
        assert found.headers["x-model-version"] == str(found.json()["version"])
        return found.json()["version"], found.json()["explanations"][0]["gradient"]

    for share in (0.3, 0.5):
        for key in KEYS:
            assert answered(key) == ({candidate} if is_chosen(trial.id, key, share) else {1})
        for key in KEYS[:6]:
            assert explained(key) == ((candidate, [3.0]) if is_chosen(trial.id, key, share) else (1, [2.0]))
        if share == 0.3:
            traffic.move(trial, stage=1)
    by_number = [
        traffic.ask(1.0, path=f"/predict/line?version={number}").json()["version"] for number in (1, candidate)
    ]
    assert by_number == [1, candidate]
    chosen = sum(is_chosen(trial.id, key, 0.3) for key in KEYS)
    traffic.move(trial, state="aborted")
    assert {traffic.ask(1.0, **{"X-User": key}).json()["version"] for key in KEYS} == {1}
    traffic.written(trial, 3 * len(KEYS))
    counts = traffic.counted(trial, "candidate"), traffic.counted(trial, "live")
    assert [one.requests for one in counts] == [3 * chosen, 3 * (len(KEYS) - chosen)]
    assert [sum(one.latency) == one.requests == one.samples for one in counts] == [True, True]
    assert loaded_of("line", candidate) == []


def test_a_candidate_that_fails_answers_as_any_version_and_its_keys_are_noted(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 100)
    trial = traffic.open(trial_of([stage(share=0.5)], version=candidate, key_header="X-User"))
    chosen = [key for key in KEYS if is_chosen(trial.id, key, 0.5)]
    for key in KEYS[:20]:
        assert traffic.ask(50.0, **{"X-User": key}).status_code == (500 if key in chosen else 200)
        assert traffic.ask_v2(50.0, **{"X-User": key}).status_code == (500 if key in chosen else 200)
        assert traffic.ask(600.0, **{"X-User": key}).status_code == 500  # with either version
    assert traffic.ask(1.0, path="/predict/line?version=nine").status_code == 422
    assert traffic.ask(50.0, path=f"/predict/line?version={candidate}").status_code == 500  # not the trial's
    failing = sum(key in chosen for key in KEYS[:20])
    traffic.written(trial, 60)
    assert traffic.counted(trial, "candidate").errors == 3 * failing
    assert traffic.counted(trial, "candidate").requests == 3 * failing
    assert (traffic.counted(trial, "live").errors, traffic.counted(trial, "live").requests) == (
        20 - failing,
        60 - 3 * failing,
    )
    arms = [arm for arm, _ in traffic.keys(trial)]
    assert (arms.count("candidate"), arms.count("live")) == (failing, 20 - failing)
    traffic.move(trial, state="rolled_back")


def slowly(traffic: Traffic, x: float, **headers: str) -> httpx.Response:
    """Ask on the route that the fast path leaves."""
    body = f'{{"inputs": [[{x}]]}}'.encode()
    given = {"Content-Type": "application/json", **headers}
    return traffic.client.post("/predict/line", content=iter([body]), headers=given)


def test_answers_that_cannot_be_described_are_errors_of_a_canary(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 100)
    trial = traffic.open(trial_of([stage(share=0.5)], version=candidate, key_header="X-User"))
    key, other = (next(key for key in KEYS if is_chosen(trial.id, key, 0.5) is chosen) for chosen in (True, False))
    for ask in (traffic.ask, partial(slowly, traffic)):
        assert ask(-50.0, **{"X-User": key}).status_code == 500
        assert ask(-50.0, **{"X-User": other}).status_code == 200
        assert ask(-600.0, **{"X-User": other}).status_code == 500
    assert traffic.ask_v2(-50.0, **{"X-User": key}).status_code == 200  # numbers, in no words
    traffic.written(trial, 7)
    counts = [traffic.counted(trial, arm) for arm in ("candidate", "live")]
    assert [(one.requests, one.samples, one.errors) for one in counts] == [(3, 1, 2), (4, 2, 2)]
    assert sorted(arm for arm, _ in traffic.keys(trial)) == ["candidate", "live"]
    traffic.move(trial, state="rolled_back")


def test_answers_that_cannot_be_described_are_errors_of_a_shadow_once(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 100)
    trial = traffic.open(trial_of([stage(shadow=1.0)], version=candidate))
    assert [traffic.ask(x).status_code for x in (1.0, -50.0, -600.0, 1.0)] == [200, 200, 500, 200]
    assert [traffic.ask_v2(x).status_code for x in (-50.0, -600.0)] == [200, 200]
    until(lambda: traffic.counted(trial, "shadow").requests == 6)
    found = traffic.counted(trial, "shadow")
    assert (found.requests, found.samples, found.errors) == (6, 3, 3)
    assert (found.agreed, found.differed) == (0, 3)
    assert len(until(lambda: Trials(traffic.store).differences(trial.id, 20))) == 2  # two are noted, in words
    assert traffic.counted(trial, "live").errors == 1
    # -50: the candidate alone, twice. -600: once both of them, and once, asked for numbers, neither.
    assert sorted(arm for arm, _ in traffic.keys(trial)) == ["live", "shadow", "shadow", "shadow"]
    traffic.move(trial, state="aborted")


def test_a_bad_body_is_an_error_of_no_version(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 3)
    trial = traffic.open(trial_of([stage(share=0.5)], version=candidate))
    for _ in range(20):
        assert traffic.client.post("/predict/line", json={"inputs": [["x"]]}).status_code == 422
    traffic.ask(1.0)
    traffic.written(trial, 1)
    assert traffic.keys(trial) == []
    traffic.move(trial, state="aborted")


def test_an_answer_that_is_not_finite_stops_a_trial_only_if_lives_is(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 1e38)
    trial = traffic.open(trial_of([stage(share=0.5)], version=candidate, key_header="X-User"))
    key = next(key for key in KEYS if is_chosen(trial.id, key, 0.5))
    assert traffic.ask(3e38, **{"X-User": key}).status_code == 422  # 2 * 3e38 is infinite, too
    until(lambda: traffic.counted(trial, "candidate").errors == 1)
    assert traffic.ask(20.0, **{"X-User": key}).status_code == 422
    until(lambda: traffic.counted(trial, "candidate").not_finite)
    assert traffic.counted(trial, "candidate").not_finite == 1
    events = until(lambda: [one for one in Trials(traffic.store).events(trial.id) if one.kind == "fault"])
    assert [one.data["kind"] for one in events] == ["not finite"]
    assert len(traffic.keys(trial)) == 1
    traffic.move(trial, state="rolled_back")


def test_a_shadow_compares_every_live_sample_and_no_caller_sees_it(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 100)
    conditions = Conditions(agreement=Agreement(at_least=0.9, tolerance=200.0))
    trial = traffic.open(trial_of([stage(shadow=1.0)], version=candidate, conditions=conditions))
    answers = [traffic.ask(x) for x in (1.0, 5.0, 20.0)]  # 101, 501; 2001 is too much
    assert [(one.status_code, one.json()["version"]) for one in answers] == [(200, 1)] * 3
    several = traffic.client.post("/predict/line", json={"inputs": [[1.0], ["bad"], [4.0]]})
    assert several.status_code == 200
    assert traffic.ask(600.0).status_code == 500  # live fails, and the candidate
    traffic.ask(1.0, path="/predict/line?version=1")
    traffic.ask(5.0, **{"X-Capture": "no"})
    until(lambda: traffic.counted(trial, "shadow").requests == 6)
    counts = traffic.counted(trial, "shadow")
    assert (counts.samples, counts.errors, counts.not_finite, counts.dropped) == (5, 2, 0, 0)
    assert (counts.agreed, counts.differed) == (2, 3)
    assert sum(counts.latency) == 4
    assert traffic.counted(trial, "live").requests == 6
    assert sorted(arm for arm, _ in traffic.keys(trial)) == ["live", "shadow", "shadow"]
    found = {one.prediction: one for one in Trials(traffic.store).differences(trial.id, 20)}
    assert found.keys() == {answers[1].json()["id"], several.json()["id"]}  # and not that of X-Capture: no
    assert found[several.json()["id"]].index == 2
    assert (found[answers[1].json()["id"]].live, found[answers[1].json()["id"]].candidate) == (
        {"value": 11.0},
        {"value": 501.0},
    )
    traffic.move(trial, state="aborted")


def test_a_shadow_takes_the_stated_share_of_the_keys_and_leaves_nothing(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 2)
    trial = traffic.open(trial_of([stage(shadow=0.3)], version=candidate, key_header="X-User"))
    for key in KEYS:
        traffic.ask(1.0, **{"X-User": key})
    chosen = sum(is_chosen(trial.id, key, 0.3) for key in KEYS)
    until(lambda: traffic.counted(trial, "shadow").agreed == chosen)
    assert len(loaded_of("line", candidate)) == 1
    traffic.move(trial, state="aborted")
    assert loaded_of("line", candidate) == []


def test_a_candidate_codes_the_body_with_its_own_artifacts(traffic: Traffic) -> None:
    candidate = add_scaled(traffic.store, 3, 2)  # the same function of x, but other samples
    trial = traffic.open(trial_of([stage(shadow=1.0), stage(share=0.5)], model="scaled", version=candidate))
    for x in range(5):
        assert traffic.ask(x, "scaled").json()["predictions"] == [{"value": 6.0 * x}]
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [2.0]}
    assert traffic.client.post("/v2/models/scaled/infer", json={"inputs": [tensor]}).json()["outputs"][0]["data"] == [
        12.0
    ]
    until(lambda: traffic.counted(trial, "shadow").requests == 6)
    assert (traffic.counted(trial, "shadow").agreed, traffic.counted(trial, "shadow").differed) == (6, 0)
    traffic.move(trial, stage=1, state="canary")
    answers = [traffic.ask(3, "scaled").json() for _ in range(40)]
    assert {answer["version"] for answer in answers} == {1, candidate}
    assert all(answer["predictions"] == [{"value": 18.0}] for answer in answers)
    traffic.move(trial, stage=1, state="aborted")


def test_a_candidate_that_cannot_be_loaded_is_a_reason_to_roll_back(traffic: Traffic) -> None:
    candidate = add_line(traffic.store, 3)
    (newest,) = (Storage(traffic.store.folder).root / "checkpoints/line").glob(f"{candidate - 1}.pt")
    newest.write_bytes(b"broken")
    trial = trial_of([stage(share=0.5)], version=candidate)
    opened(traffic.store, trial)
    events = until(lambda: [one for one in Trials(traffic.store).events(trial.id) if one.kind == "fault"])
    assert [one.data["kind"] for one in events] == ["load"]
    assert f"version {candidate} of line cannot be loaded" in events[0].data["detail"]
    assert {traffic.ask(1.0).json()["version"] for _ in range(20)} == {1}
    traffic.move(trial, state="rolled_back")
