"""A user's file becomes a dataset version, and a version of the model that is trained on it: with the real parts."""

import csv
import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.catalog import specs
from service.execution.recipes import read_recipes
from service.jobs.queue import Jobs
from service.jobs.worker import Worker
from service.store.database import Store
from tests.fakes import InProcess, started_before
from tests.serving import serving
from tests.waiting import until

pytestmark = pytest.mark.slow

VERSIONS = "/models/regressor/datasets/field/versions"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(started_before(tmp_path / "store"))
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    known = {"regressor": specs()["regressor"]}
    with serving(store.folder / "none", known, partial(read_recipes, store.folder), store=store.folder) as client:
        yield client


def lines(rows: int, first: int = 0) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows(
        [("x", "value"), *((number / 100, number / 50) for number in range(first, first + rows))]
    )
    return file.getvalue().encode()


def work(store: Store, client: TestClient) -> Any:
    job = Jobs(store).claim("w", now=time.time(), monotonic_s=0, lease_s=1000)
    assert job is not None
    child = partial(InProcess, {"regressor": specs()["regressor"]})
    Worker(store, store.folder, "w", device="cpu", start_child=child).work(job)
    return client.get(f"/jobs/{job.id}").json()


def test_a_model_learns_an_uploaded_file_and_its_successor(store: Store, client: TestClient) -> None:
    client.post(VERSIONS, content=lines(200))
    job = work(store, client)
    assert (job["state"], job["dataset"]) == ("succeeded", "field@1"), job
    first = client.get(f"{VERSIONS}/1").json()
    assert sum(first["examples"].values()) == 200

    train = {"model": "regressor", "dataset": "field", "config": {"epochs": 1}, "promote": "always"}
    assert client.post("/train", json=train).json()["dataset"] == "field@1"
    job = work(store, client)
    assert (job["state"], job["version"]) == ("succeeded", 1), job
    version = client.get("/models/regressor/versions/1").json()
    assert (version["dataset"], version["dataset_sha256"]) == ("field@1", first["sha256"])
    assert client.get(f"{VERSIONS}/1").json()["trained"] == [1]

    until(lambda: client.get("/models/regressor").json()["live"] == 1)
    checkpoint = client.get("/models/regressor/versions/1/checkpoint").content
    uploaded = client.post("/models/regressor/versions", content=checkpoint).json()
    assert (uploaded["dataset"], uploaded["dataset_sha256"]) == ("field@1", first["sha256"])
    assert uploaded["metrics"] == version["metrics"]

    client.post(VERSIONS, content=lines(100, 150) + b"abc,1\n", params={"parent": "field", "allow_rejected": 0.1})
    job = work(store, client)
    second = client.get(f"{VERSIONS}/2").json()
    assert (second["parent"], second["rejected"], second["added"], second["duplicates"]) == ("field@1", 1, 50, 50), job
    report = client.get(f"{VERSIONS}/2/report").json()
    assert [row["row"] for row in report["refused"]] == [101]

    client.post("/train", json={**train, "promote": "if_better"})
    job = work(store, client)
    assert (job["state"], job["dataset"]) == ("succeeded", "field@2"), job
    gate = job["gate"]
    assert gate["live"] is not None  # both were evaluated on field@2
    assert gate["old_rows"]["rows"] == first["examples"]["validation"]
    assert gate["new_rows"]["rows"] == second["examples"]["validation"] - first["examples"]["validation"] > 0
    assert gate["rows"] == second["examples"]["validation"]
    assert client.delete(f"{VERSIONS}/1").status_code == 409


def test_a_file_with_refused_rows_fails_and_says_which(store: Store, client: TestClient) -> None:
    client.post(VERSIONS, content=lines(20) + b"abc,1\n")
    job = work(store, client)
    assert (job["state"], job["error"]["title"]) == ("failed", "Too many rows refused")
    assert (job["report"]["rows"], job["report"]["rejected"]) == (21, 1)
    assert job["report"]["by_reason"][0]["first"][0]["row"] == 21
    (own,) = client.get("/models/regressor/datasets").json()["datasets"]
    assert (own["dataset"], own["built_in"], own["examples"]["train"]) == ("parabola@1", True, 100)
