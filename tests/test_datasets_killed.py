"""The worker that reads a large file is killed on the way: another one makes the version, with each row once."""

import signal
from functools import partial
from pathlib import Path

import pytest

from models.catalog import specs
from service.execution.recipes import read_recipes
from service.jobs.queue import Jobs
from service.store.database import Store
from tests.fakes import started_before
from tests.serving import serving
from tests.waiting import until
from tests.workers import worker

pytestmark = pytest.mark.slow

ROWS = 60_000
VERSIONS = "/models/regressor/datasets/field/versions"


def test_an_ingest_survives_the_death_of_its_worker(tmp_path: Path) -> None:
    store = Store(started_before(tmp_path / "store"))
    store.migrate()
    content = b"x,value\n" + b"".join(b"%d,%d\n" % (row, row % 7) for row in range(ROWS))
    known = {"regressor": specs()["regressor"]}
    with serving(tmp_path / "none", known, partial(read_recipes, store.folder), store=store.folder) as client:
        uploads = client.post("/models/regressor/datasets/field/uploads", json={"bytes": len(content)})
        upload = uploads.headers["location"]
        for begin in range(0, len(content), 200_000):
            part = content[begin : begin + 200_000]
            assert client.put(upload, params={"offset": begin}, content=part).status_code == 200
        job = client.post(f"{upload}/finish").json()["id"]
        jobs = Jobs(store)
        with worker(store, "") as first:
            until(lambda: jobs.get(job).progress)
            first.send_signal(signal.SIGKILL)
            first.wait(30)
        assert jobs.get(job).state == "running"
        with worker(store, ""):
            until(lambda: jobs.get(job).state not in {"queued", "running"})
        done = jobs.get(job)
        assert (done.state, done.attempt, done.dataset) == ("succeeded", 2, "field@1")
        found = client.get(f"{VERSIONS}/1").json()
        assert (sum(found["examples"].values()), found["rows"], found["rejected"]) == (ROWS, ROWS, 0)
    folder = store.folder / "datasets/regressor"
    assert sorted(path.name for path in folder.iterdir()) == sorted([found["sha256"], "originals", "reports"])
    assert len(list((folder / "originals").iterdir())) == 1
    assert not list((store.folder / "uploads").iterdir())
    store.close()
