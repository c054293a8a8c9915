"""POST /train and the jobs' routes, in process; no worker runs, so that each state is reached by hand."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.delivery.gate import Gate
from service.execution.recipes import RecipeSchema
from service.jobs.queue import Job, Jobs
from service.settings import Key, Settings
from service.store.database import Store
from tests.fakes import LINE, InProcess, save_line
from tests.problems import is_problem
from tests.serving import line_recipes, serving
from tests.sockets import listening
from tests.templates import migrated
from tests.waiting import until


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    save_line(tmp_path / "shipped")
    with serving(tmp_path / "shipped", {"line": LINE, "bare": LINE}, store=tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service for tests that queue no job."""
    shipped = tmp_path_factory.mktemp("shipped")
    save_line(shipped)
    with serving(shipped, {"line": LINE, "bare": LINE}) as client:
        yield client


@pytest.fixture
def jobs(client: TestClient, tmp_path: Path) -> Iterator[Jobs]:
    store = Store(tmp_path)
    yield Jobs(store)
    store.close()


def train(client: TestClient, **body: Any) -> Any:
    return client.post("/train", json={"model": "line", **body})


def claimed(jobs: Jobs) -> Job:
    job = jobs.claim("w", now=time.time(), monotonic_s=0, lease_s=1000)
    assert job is not None
    return job


def test_a_job_is_accepted_with_its_complete_config(client: TestClient) -> None:
    response = train(client)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (job["state"], job["config"], job["promote"], job["attempt"]) == ("queued", {"epochs": 1}, "if_better", 0)
    assert (job["progress"], job["version"], job["gate"], job["error"], job["started_at"]) == (None,) * 5
    assert job["created_at"].endswith("Z")
    assert client.get(response.headers["location"]).json() == job


@pytest.mark.parametrize("state", ["cancelled", "succeeded", "failed"])
def test_an_event_source_that_reconnects_after_the_end_gets_204(
    client: TestClient, jobs: Jobs, tmp_path: Path, state: str
) -> None:
    """204 ends its attempts (HTML standard, section 9.2.3)."""
    if state == "succeeded":
        identifier = done(client, jobs, tmp_path).id
    else:
        identifier = train(client).json()["id"]
        if state == "failed":
            jobs.fail(claimed(jobs), "title", "detail", now=time.time())
        else:
            jobs.cancel(identifier, now=time.time())
    path = f"/jobs/{identifier}/events"
    events = client.get(path)
    numbers = [int(line[4:]) for line in events.text.splitlines() if line.startswith("id: ")]
    assert (events.status_code, state in events.text) == (200, True)
    assert client.get(path, headers={"Last-Event-ID": str(numbers[-2])}).status_code == 200
    for last in (numbers[-1], numbers[-1] + 100):
        again = client.get(path, headers={"Last-Event-ID": str(last)})
        assert (again.status_code, again.content) == (204, b"")
        assert client.head(path, headers={"Last-Event-ID": str(last)}).status_code == 204


def test_a_repeated_idempotency_key_gives_the_first_job(client: TestClient) -> None:
    def ask(key: str) -> Any:
        return client.post("/train", json={"model": "line"}, headers={"Idempotency-Key": key})

    first, again, other = ask("a"), ask("a"), ask("b")
    assert again.status_code == 202
    assert again.json() == first.json()
    assert other.json()["id"] != first.json()["id"]
    assert ask("x" * 201).status_code == 422
    reused = client.post("/train", json={"model": "line", "promote": "never"}, headers={"Idempotency-Key": "a"})
    assert reused.status_code == 422
    assert first.json()["id"] in reused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "nope"}, 404, "known are line"),
        ({"model": "bare"}, 422, "no recipe"),
        ({"config": {"epochs": 0}}, 422, "epochs: 0 is less than the minimum"),
        ({"config": {"epochs": "1"}}, 422, "epochs: '1' is not of type 'integer'"),
        ({"config": {"epochs": True}}, 422, "epochs"),
        ({"config": {"depth": 3}}, 422, "depth: unknown hyperparameter; known are epochs"),
        ({"config": []}, 422, "config"),
        ({"promote": "maybe"}, 422, "promote"),
        ({"entrypoint": "true"}, 422, "entrypoint"),
        ({"model": None}, 422, "model"),
    ],
)
def test_a_bad_order_names_what_is_wrong(idle: TestClient, body: dict[str, Any], status: int, words: str) -> None:
    response = train(idle, **body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert idle.get("/jobs").json()["jobs"] == []


FLOATS = RecipeSchema(
    hyperparameters={
        "properties": {
            "lr": {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "default": 0.1},
            "weight_decay": {"type": "number", "default": 0.0},
            "betas": {"type": "array", "items": {"type": "number"}, "default": [0.9]},
        }
    },
    metric="mse",
    higher_is_better=False,
)


async def floats() -> Mapping[str, RecipeSchema]:
    return {"line": FLOATS}


def on(folder: Path, database_url: str) -> dict[str, Any]:
    """The settings of an empty store on this database."""
    return {"store": folder / "store"} | ({"database_url": database_url} if database_url else {})


def test_no_number_outside_json_and_no_lone_surrogate_becomes_a_job(tmp_path: Path, database_url: str) -> None:
    """Raw JSON, as Python's json module and JavaScript's write it; PostgreSQL refuses what SQLite would take."""
    numbers = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400, "true", "[NaN]", '"\\ud800"')
    configs = [f'{{"{name}": {number}}}' for name in ("lr", "weight_decay") for number in numbers]
    configs += ['{"betas": [NaN]}', '{"betas": [0.5, 1e999]}', '{"\\ud800": 1}', '{"betas": {"\\udfff": 1}}']
    bodies = [f'{{"model": "line", "config": {config}}}' for config in configs]
    bodies += [
        '{"model": "\\ud800"}',
        '{"model": "line", "\\ud800": 1}',
        '{"model": "line", "promote": "\\ud800"}',
        "NaN",
    ]
    bodies += ['{"model": NaN}', '{"model": "line", "tensorboard": NaN}', '{"model": "line", "config": NaN}']
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, floats, **on(tmp_path, database_url)) as client:
        for body in bodies:
            response = client.post("/train", content=body, headers={"content-type": "application/json"})
            assert response.status_code in {400, 404, 422}, (body, response.text)
            assert response.headers["content-type"] == "application/problem+json", body
            assert "detail" in response.json()
        assert client.get("/jobs").json()["jobs"] == []
        assert client.post("/train", json={"model": "line", "config": {"lr": 0.5}}).status_code == 202


def test_a_job_asks_for_event_files_or_does_not(client: TestClient) -> None:
    assert [train(client, **asked).json()["tensorboard"] for asked in ({}, {"tensorboard": True})] == [False, True]


def test_what_is_no_json_is_malformed(idle: TestClient) -> None:
    response = idle.post("/train", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_jobs_are_listed_newest_first_in_pages(client: TestClient) -> None:
    ids = [train(client).json()["id"] for _ in range(5)]
    first = client.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["jobs"]] == ids[:2:-1]
    rest = client.get("/jobs", params={"limit": 3, "cursor": first["cursor"]}).json()
    assert [job["id"] for job in rest["jobs"]] == ids[2::-1]
    assert rest["cursor"] is None


def test_jobs_can_be_filtered(client: TestClient, jobs: Jobs) -> None:
    ids = [train(client).json()["id"] for _ in range(2)]
    claimed(jobs)
    assert [job["id"] for job in client.get("/jobs", params={"state": "running"}).json()["jobs"]] == ids[:1]
    assert client.get("/jobs", params={"model": "other"}).json()["jobs"] == []
    assert client.get("/jobs", params={"kind": "ingest"}).json()["jobs"] == []
    assert len(client.get("/jobs", params={"kind": "train", "state": "queued"}).json()["jobs"]) == 1


@pytest.mark.parametrize(
    "query", ["state=odd", "kind=odd", "limit=0", "limit=201", "cursor=x", f"cursor={'9' * 30}", "cursor=-1"]
)
def test_odd_parameters_are_422(idle: TestClient, query: str) -> None:
    assert idle.get(f"/jobs?{query}").status_code == 422


@pytest.mark.parametrize("path", ["", "/events", "/history", "/plot.png"])
def test_an_unknown_job_is_404(idle: TestClient, path: str) -> None:
    response = idle.get(f"/jobs/nope{path}")
    assert response.status_code == 404
    assert "GET /jobs" in response.json()["detail"]


def test_cancel_ends_a_queued_job_and_asks_a_running_one(client: TestClient, jobs: Jobs) -> None:
    queued = train(client).json()["id"]
    response = client.post(f"/jobs/{queued}/cancel")
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    again = client.post(f"/jobs/{queued}/cancel")
    assert (again.status_code, again.json()["title"]) == (409, "Conflict")
    train(client)
    running = claimed(jobs)
    assert client.post(f"/jobs/{running.id}/cancel").json()["state"] == "running"
    assert jobs.beat(running, [], now=time.time()) is True
    assert client.post("/jobs/nope/cancel").status_code == 404


def test_each_key_has_its_share_of_the_queue(tmp_path: Path) -> None:
    save_line(tmp_path / "shipped")
    keys = [Key(scope="train", secret=secret) for secret in ("one", "two")]
    options: dict[str, Any] = {"store": tmp_path, "api_keys": tuple(keys), "max_queued_jobs": 3}
    with serving(tmp_path / "shipped", {"line": LINE}, **options) as client:

        def ask(secret: str) -> Any:
            return client.post("/train", json={"model": "line"}, headers={"Authorization": f"Bearer {secret}"})

        assert [ask("one").status_code for _ in range(5)] == [202, 202, 202, 429, 429]
        refused = ask("one")
        assert (refused.json()["title"], refused.headers["retry-after"]) == ("Limit reached", "10")
        assert [ask("two").status_code for _ in range(4)] == [202, 202, 202, 429]
        store = Store(tmp_path)
        assert [claimed(Jobs(store)).submitter for _ in range(4)] == ["train-1", "train-2", "train-1", "train-2"]
        store.close()
        assert ask("one").status_code == 202


def test_queued_jobs_are_cancelled_with_one_request(client: TestClient, jobs: Jobs) -> None:
    for _ in range(3):
        train(client)
    running = claimed(jobs)
    assert client.delete("/jobs").status_code == 422
    assert client.delete("/jobs", params={"state": "running"}).status_code == 422
    response = client.delete("/jobs", params={"state": "queued", "model": "bare"})
    assert (response.status_code, response.json()) == (200, {"cancelled": 0})
    assert client.delete("/jobs", params={"state": "queued"}).json() == {"cancelled": 2}
    states = Counter(job["state"] for job in client.get("/jobs").json()["jobs"])
    assert states == {"cancelled": 2, "running": 1}
    assert jobs.get(running.id).state == "running"
    assert {"GET", "DELETE"} <= set(client.put("/jobs").headers["allow"].split(", "))


SECRETS = {"one": "train", "two": "train", "boss": "admin", "reads": "predict"}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[TestClient]:
    """A service with two keys of scope train, and jobs from before it had keys."""
    save_line(tmp_path / "shipped")
    store = Store(migrated(tmp_path))
    Jobs(store).enqueue("line", {"epochs": 1}, "never", submitter="anyone", now=time.time())
    store.close()
    keys = tuple(Key(scope=scope, secret=secret) for secret, scope in SECRETS.items())
    with serving(tmp_path / "shipped", {"line": LINE}, store=tmp_path, api_keys=keys) as client:
        yield client


def signed(client: TestClient, secret: str, method: str, path: str, **more: Any) -> Any:
    return client.request(method, path, headers={"Authorization": f"Bearer {secret}"}, **more)


def queued_by(client: TestClient, secret: str, count: int) -> list[str]:
    ask = {"json": {"model": "line"}}
    return [signed(client, secret, "POST", "/train", **ask).json()["id"] for _ in range(count)]


def states(client: TestClient) -> Counter[str]:
    return Counter(job["state"] for job in signed(client, "reads", "GET", "/jobs").json()["jobs"])


def test_a_key_cancels_the_queued_jobs_that_were_queued_with_it(locked: TestClient) -> None:
    ones, twos = queued_by(locked, "one", 3), queued_by(locked, "two", 2)
    everything = {"params": {"state": "queued"}}
    assert signed(locked, "reads", "DELETE", "/jobs", **everything).status_code == 403
    assert signed(locked, "two", "DELETE", "/jobs", **everything).json() == {"cancelled": 2}
    assert states(locked) == {"queued": 1 + len(ones), "cancelled": len(twos)}
    assert signed(locked, "two", "DELETE", "/jobs", **everything).json() == {"cancelled": 0}
    of_another = {"state": "queued", "model": "x"}
    assert signed(locked, "boss", "DELETE", "/jobs", params=of_another).json() == {"cancelled": 0}
    assert signed(locked, "boss", "DELETE", "/jobs", **everything).json() == {"cancelled": 1 + len(ones)}
    assert states(locked) == {"cancelled": 1 + len(ones) + len(twos)}


def test_a_key_of_scope_train_cancels_any_single_job(locked: TestClient) -> None:
    (job,) = queued_by(locked, "one", 1)
    assert signed(locked, "reads", "POST", f"/jobs/{job}/cancel").status_code == 403
    assert signed(locked, "two", "POST", "/jobs/nope/cancel").status_code == 404
    assert signed(locked, "two", "POST", f"/jobs/{job}/cancel").json()["state"] == "cancelled"


POINTS: list[dict[str, Any]] = [
    {"epoch": 1, "epochs": 1, "step": step, "steps": 3, "loss": 1 / step, "metrics": {}} for step in (1, 2, 3)
]
KEPT = Gate(decision="kept", metric="validation_mse", candidate=1.0, live=0.5, reason="not better", rows=9, p_value=0.5)


def done(client: TestClient, jobs: Jobs, tmp_path: Path) -> Job:
    train(client)
    job = claimed(jobs)
    jobs.beat(job, POINTS, now=time.time())
    store = Store(tmp_path)
    with store.write() as connection:
        jobs.finish(connection, job, 2, KEPT, now=time.time())
    store.close()
    return job


def test_a_finished_job_says_what_came_of_it(client: TestClient, jobs: Jobs, tmp_path: Path) -> None:
    job = client.get(f"/jobs/{done(client, jobs, tmp_path).id}").json()
    assert (job["state"], job["version"], job["progress"]) == ("succeeded", 2, POINTS[-1])
    assert job["gate"] == KEPT.as_dict()
    assert job["started_at"] <= job["finished_at"]
    assert client.get(f"/jobs/{job['id']}/history").json() == {"job": job["id"], "points": POINTS}


def parsed(text: str) -> list[tuple[int, str, Any]]:
    """The server-sent events of a stream."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((int(fields["id"]), fields["event"], orjson.loads(fields["data"])))
    return events


def test_the_event_stream_tells_all_and_ends_with_the_job(client: TestClient, jobs: Jobs, tmp_path: Path) -> None:
    job = done(client, jobs, tmp_path)
    response = client.get(f"/jobs/{job.id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = parsed(response.text)
    assert [kind for _, kind, _ in events] == ["state", "state", "progress", "progress", "progress", "state"]
    assert [data["step"] for _, kind, data in events if kind == "progress"] == [1, 2, 3]
    assert events[-1][2]["state"] == "succeeded"
    assert events[-1][2]["gate"]["decision"] == "kept"


def test_the_event_stream_resumes_after_the_last_one_seen(client: TestClient, jobs: Jobs, tmp_path: Path) -> None:
    job = done(client, jobs, tmp_path)
    events = parsed(client.get(f"/jobs/{job.id}/events").text)
    rest = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": str(events[3][0])})
    assert parsed(rest.text) == events[4:]
    assert client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_a_job_without_a_point_has_no_plot_yet(client: TestClient, tmp_path: Path) -> None:
    job = train(client).json()["id"]
    detail = f"job {job} has no plot: the first is drawn after two seconds of training, or at its end"
    assert is_problem(client.get(f"/jobs/{job}/plot.png"), 404, detail)
    (tmp_path / "jobs" / job).mkdir(parents=True)
    (tmp_path / "jobs" / job / "plot.png").write_bytes(b"\x89PNG...")
    response = client.get(f"/jobs/{job}/plot.png")
    assert (response.headers["content-type"], response.content) == ("image/png", b"\x89PNG...")


def test_event_streams_beyond_the_limit_get_429_until_one_is_closed(tmp_path: Path) -> None:
    save_line(tmp_path / "shipped")
    settings = Settings(store=migrated(tmp_path), max_event_streams=2)
    app = create_app(settings, {"line": LINE}, tmp_path / "shipped", line_recipes, partial(InProcess, {"line": LINE}))
    with listening(app) as ((host, port), _), httpx.Client(base_url=f"http://{host}:{port}") as http:
        path = f"/jobs/{http.post('/train', json={'model': 'line'}).json()['id']}/events"

        def status() -> int:
            with http.stream("GET", path) as response:
                return response.status_code

        with http.stream("GET", path) as first, ExitStack() as stack:
            second = stack.enter_context(http.stream("GET", path))
            lines = [stream.iter_lines() for stream in (first, second)]  # kept: a stream ends with its iterator
            assert [next(sent) for sent in lines] == ["id: 1", "id: 1"]
            refused = http.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert "2 event streams are open" in refused.json()["detail"]
            stack.close()
            until(lambda: status() == 200)
