"""The topology of docker-compose.yml, doubled, as processes: two web, two workers, PostgreSQL."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from benchmarks.postgres import Postgres
from service.store.database import Store
from tests.fakes import running_server
from tests.waiting import until
from tests.workers import worker

pytestmark = pytest.mark.slow


def succeeded(client: httpx.Client, job_id: str) -> bool:
    return bool(client.get(f"/jobs/{job_id}").json()["state"] == "succeeded")


def loaded(client: httpx.Client, version: int) -> bool:
    return bool(client.get("/models/classifier").json()["loaded"] == version)


def test_two_replicas_and_two_workers_share_one_database(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database("topology")
    settings = {"TORCHLOOP_STORE": str(tmp_path), "TORCHLOOP_DATABASE_URL": url, "TORCHLOOP_API_KEYS": "admin:secret"}
    store = Store(tmp_path, url)
    with ExitStack() as stack:
        webs = [stack.enter_context(running_server(settings)) for _ in range(2)]
        for _ in range(2):
            stack.enter_context(worker(store, url))
        clients = [
            stack.enter_context(httpx.Client(base_url=web, headers={"Authorization": "Bearer secret"}, timeout=30))
            for web in webs
        ]
        order = {"model": "classifier", "config": {"epochs": 20}, "promote": "always"}
        ids = [clients[i % 2].post("/train", json=order).json()["id"] for i in range(2)]
        for i, job_id in enumerate(ids):  # each asked of the replica that did not take it in
            until(partial(succeeded, clients[(i + 1) % 2], job_id))
        jobs = clients[0].get("/jobs").json()["jobs"]
        assert {job["attempt"] for job in jobs} == {1}
        assert sorted(job["version"] for job in jobs) == [2, 3]

        live = clients[0].get("/models/classifier/promotions").json()["live"]
        for client in clients:
            until(partial(loaded, client, live))
        back = clients[0].post("/models/classifier/rollback").json()["live"]
        until(partial(loaded, clients[1], back))
        answers = [client.post("/predict/classifier", json={"inputs": [[2, 2]]}).json() for client in clients]
        assert [answer["version"] for answer in answers] == [back, back]
    store.close()
