"""Two services with a store folder each, one database and one object store; and an object store that is away."""

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from benchmarks.objects import S3Server
from models.checkpoints.objects import Objects
from models.checkpoints.record import Record
from service.delivery.registry import Registry
from service.jobs.queue import Jobs
from service.jobs.worker import Worker
from service.settings import SettingsError
from service.store.database import Store
from tests.dataset_service import recipes
from tests.fakes import LINE, InProcess, save_line
from tests.line_versions import promote, state, upload
from tests.serving import no_recipes, serving
from tests.waiting import until
from training import metrics
from training.executor import Executor
from training.fitting.resume import ResumePoints
from training.recipe import Dataset, Hyperparameters, Progress, Recipe, Report, Split

pytestmark = pytest.mark.slow
AWAY = "the object store cannot be reached or used; try again in a few seconds"
SPECS = {"line": LINE}
_NO_ROWS = Split(torch.zeros(0, 1), torch.zeros(0, 1))
UPLOADS = "/models/line/datasets/field/uploads"


def _fit(_: nn.Module, __: Dataset, ___: Hyperparameters, report: Report) -> None:
    report(Progress(epoch=1, epochs=1, step=1, steps=1, loss=1.0))


RECIPE = Recipe(
    config=Hyperparameters,
    arguments=lambda _: {},
    load=lambda *_: Dataset(name="none", train=_NO_ROWS, validation=_NO_ROWS, test=_NO_ROWS),
    target="value",
    fit=_fit,
    evaluate=metrics.regression,
    metric="mse",
    higher_is_better=False,
)


class Learning(InProcess):
    """A child in which `line` has a recipe, which learns nothing."""

    def __init__(self) -> None:
        super().__init__(SPECS)
        self._executor = Executor(self._tell, SPECS, lambda: {"line": RECIPE})


class Machine:
    """One of several machines: its store folder, and the service on it."""

    def __init__(self, folder: Path, url: str, artifacts: str) -> None:
        self.folder = folder
        self.artifacts = artifacts
        self.settings: dict[str, Any] = {"store": folder, "database_url": url, "artifacts": artifacts}
        self.store = Store(folder, url, artifacts=artifacts)

    @contextmanager
    def serving(self, shipped: Path, known: Any = no_recipes) -> Iterator[TestClient]:
        with serving(shipped, SPECS, known, **self.settings, data=self.folder) as client:
            yield client

    def copies(self) -> list[Path]:
        """Return the weights that lie in the store folder."""
        return sorted((self.folder / "checkpoints/line").glob("*.pt"))


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[str, str], Machine]]:
    """A function that makes a machine: of a name, with an object store."""
    made: list[Machine] = []

    def make(name: str, artifacts: str = f"file://{tmp_path}/objects") -> Machine:
        made.append(Machine(tmp_path / name, f"sqlite:///{tmp_path}/rows.db", artifacts))
        made[-1].store.migrate()
        return made[-1]

    save_line(tmp_path / "shipped")
    yield make
    for one in made:
        one.store.close()


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return tmp_path / "shipped"


def answer(client: TestClient, **params: Any) -> Any:
    return client.post("/predict/line", json={"inputs": [[10]]}, params=params).json()["predictions"][0]["value"]


def test_what_is_uploaded_at_one_machine_is_promoted_and_downloaded_at_another(
    machines: Callable[..., Machine], shipped: Path
) -> None:
    a, b = machines("a"), machines("b")
    with a.serving(shipped) as first, b.serving(shipped) as second:
        number = upload(first, 5)
        assert len(b.copies()) == 1  # of the shipped version
        assert promote(second, number).status_code == 200
        assert answer(second) == 51
        until(lambda: answer(first) == 51)
        assert list((a.folder / "exports/line").iterdir()), "what one machine exports the other fetches"
        assert {path.name for path in (b.folder / "exports/line").iterdir()} >= {
            path.name for path in (a.folder / "exports/line").iterdir()
        }
        downloads = [one.get(f"/models/line/versions/{number}/checkpoint") for one in (first, second)]
        assert downloads[0].content == downloads[1].content
        bundle = second.get(f"/models/line/versions/{number}/checkpoint", params={"artifacts": True}).content
        with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
            assert archive.getnames()[0] == f"line-{number}.pt"
        assert second.post("/explain/line", json={"inputs": [[10]]}).status_code == 200


def test_damaged_copies_are_fetched_anew_and_damaged_objects_named(
    machines: Callable[..., Machine], shipped: Path
) -> None:
    a = machines("a")
    with a.serving(shipped) as client:
        number = upload(client, 5)
        (path,) = set(a.copies()) - {a.store.storage.root / row for row in _live_paths(a)}
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        assert promote(client, number).status_code == 200
        other = upload(client, 7)
        (key,) = [key for key in _keys(a) if key.startswith("checkpoints/") and _sha256(client, other) in key]
        objects = Objects.at(a.artifacts)
        objects.delete([key])
        objects.put(key, b"damaged")
        for copy in a.copies():
            copy.unlink()
        refused = promote(client, other)
        assert (refused.status_code, f"{key} in the object store is damaged" in refused.json()["detail"]) == (409, True)
        missing = client.get(f"/models/line/versions/{other}/checkpoint")
        assert (missing.status_code, "is damaged (sha256 differs)" in missing.json()["detail"]) == (404, True)


def test_a_store_folder_without_room_for_copies_is_a_503_and_no_fault_of_the_version(
    machines: Callable[..., Machine], shipped: Path
) -> None:
    a, b = machines("a"), machines("b")
    with a.serving(shipped) as first, b.serving(shipped) as second:
        number = upload(first, 5)
        folder = b.folder / "checkpoints/line"
        folder.rename(folder.with_name("aside"))
        folder.write_bytes(b"")  # no folder, so that nothing can be written into it
        answers = [
            promote(second, number),
            second.post("/predict/line", json={"inputs": [[10]]}, params={"version": number}),
            second.get(f"/models/line/versions/{number}/checkpoint"),
        ]
        for found in answers:
            assert found.status_code == 503
            assert "cannot be copied from the object store: the store folder cannot" in found.json()["detail"]
        assert answer(second) == answer(first)
        folder.unlink()
        assert promote(second, number).status_code == 200


def _keys(machine: Machine) -> list[str]:
    return [found.key for found in Objects.at(machine.artifacts).below("")]


def _sha256(client: TestClient, version: int) -> str:
    return str(client.get(f"/models/line/versions/{version}").json()["sha256"])


def _live_paths(machine: Machine) -> list[str]:
    registry = Registry(machine.store)
    return [registry.version(model, number).path for model, number in registry.live().items()]


def test_parts_go_to_either_machine_and_the_other_one_ingests_and_trains(
    machines: Callable[..., Machine], shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.specs", lambda: SPECS)
    a, b = machines("a"), machines("b")
    content = b"x,y\n" + b"".join(b"%d,%d\n" % (row, 2 * row + 2) for row in range(300)) + b"bad,1\n"
    begun = {"bytes": len(content), "options": {"label_column": "y"}}
    with a.serving(shipped, recipes) as first, b.serving(shipped, recipes) as second:
        clients = [first, second]
        where = first.post(UPLOADS, json=begun).headers["location"]
        assert second.put(where, params={"offset": 5}, content=b"1").status_code == 409
        for number, offset in enumerate(range(0, len(content), 1000)):
            part = content[offset : offset + 1000]
            sent = clients[number % 2].put(where, params={"offset": offset}, content=part)
            assert sent.json() == {"received": offset + len(part)}
        again = first.put(where, params={"offset": 0}, content=content[:1000])
        assert (again.status_code, again.headers["upload-offset"]) == (409, str(len(content)))
        assert second.get(where).json()["received"] == len(content)
        job = second.post(f"{where}/finish", json={"allow_rejected": 0.1}).json()
        assert first.post(f"{where}/finish").json()["id"] == job["id"]
        assert not [key for key in _keys(a) if key.startswith("uploads/")]
        assert work(a)["state"] == "succeeded"
        report = second.get("/models/line/datasets/field/versions/1/report").json()
        assert (report["rejected"], report["refused"][0]["row"]) == (1, 301)
        train = {"model": "line", "dataset": "field", "config": {"epochs": 1}}
        assert first.post("/train", json=train).status_code == 202
        done = work(b)
        assert done["state"] == "succeeded", done
        assert first.get(f"/jobs/{done['id']}/plot.png").content.startswith(b"\x89PNG")
        assert first.delete("/models/line/datasets/field/versions/1", params={"erase": True}).status_code == 204
        assert not [key for key in _keys(a) if key.startswith("datasets/")]


def test_a_file_that_is_lost_ends_its_job_in_words(machines: Callable[..., Machine], shipped: Path) -> None:
    a, b = machines("a"), machines("b")
    with a.serving(shipped, recipes) as client:
        client.post("/models/line/datasets/field/versions", content=b"x,y\n1,2\n", params={"label_column": "y"})
    (key,) = [key for key in _keys(a) if key.startswith("datasets/")]
    Objects.at(a.artifacts).delete([key])
    done = work(b)
    assert (done["state"], done["error"]["title"]) == ("failed", "Missing dataset")
    assert done["error"]["detail"].startswith(f"{key} is missing in the object store: restore it")


def test_a_resume_point_of_another_machine_is_found_and_written_while_the_object_store_is_away(
    machines: Callable[..., Machine], s3: S3Server
) -> None:
    artifacts = s3.create_bucket()
    a, b = (_points(machines(name, artifacts), attempt) for attempt, name in enumerate("ab", 1))
    a.save(lambda: {"epoch": 2})
    a.save(lambda: {"epoch": 2.5})  # in the pause after the first one, which is as long as puts take
    s3.stop()
    try:
        b.save(lambda: {"epoch": 3})  # on this machine only
    finally:
        s3.start()
    assert b.saved() == {"epoch": 3}
    assert _points(machines("c", artifacts), 3).saved() == {"epoch": 2}
    assert len(Objects.at(artifacts).below("jobs")) == 1


def _points(machine: Machine, attempt: int) -> ResumePoints:
    storage = machine.store.storage
    return ResumePoints(partial(storage.resume_point, "job"), attempt, lambda _: None, every_s=0, storage=storage)


def work(machine: Machine) -> dict[str, Any]:
    """Have a worker on this machine do the next job. Returns the job's fields."""
    jobs = Jobs(machine.store)
    job = jobs.claim("w", now=time.time(), monotonic_s=time.monotonic(), lease_s=1000)
    assert job is not None
    Worker(machine.store, machine.folder, "w", device="cpu", start_child=Learning).work(job)
    return asdict(jobs.get(job.id))


def test_while_the_object_store_is_away_cached_versions_answer_and_others_say_why(
    machines: Callable[..., Machine], shipped: Path, s3: S3Server
) -> None:
    a = machines("a", s3.create_bucket())
    with a.serving(shipped) as client:
        cached, absent = upload(client, 5), upload(client, 7)
        assert answer(client, version=cached) == 51  # its export is made
        (a.store.storage.root / _path(a, absent)).unlink()
        s3.stop()
        try:
            assert answer(client) == 21
            assert promote(client, cached).status_code == 200
            assert answer(client) == 51
            assert answer(client, version=1) == 21
            for refused in (
                promote(client, absent),
                client.get(f"/models/line/versions/{absent}/checkpoint"),
                client.post("/models/line/versions", content=state(9)),
                client.post("/predict/line", json={"inputs": [[10]]}, params={"version": absent}),
            ):
                assert (refused.status_code, refused.json()["detail"]) == (503, AWAY)
                assert refused.headers["retry-after"] == "2"
            assert client.get(f"/models/line/versions/{cached}/checkpoint").status_code == 200
            assert client.get("/health/ready").json()["store"] == {"objects": AWAY}
        finally:
            s3.start()
        until(lambda: promote(client, absent).status_code == 200)
        assert answer(client) == 71
        until(lambda: client.get("/health/ready").json()["store"] == {})


def _path(machine: Machine, version: int) -> str:
    return Registry(machine.store).version("line", version).path


def test_a_service_starts_without_its_object_store_if_it_has_copies(
    machines: Callable[..., Machine], shipped: Path, s3: S3Server
) -> None:
    a = machines("a", s3.create_bucket())
    with a.serving(shipped) as client:
        assert answer(client) == 21
    s3.stop()
    try:
        a.store.probe()
        assert a.store.faults == {"objects": AWAY}
        with a.serving(shipped) as client:
            assert answer(client) == 21
        for copy in a.copies():
            copy.unlink()
        with a.serving(shipped) as client:
            refused = client.post("/predict/line", json={"inputs": [[10]]})
            assert (refused.status_code, AWAY in refused.json()["detail"]) == (503, True)
    finally:
        s3.start()


def test_a_folder_may_have_the_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", artifacts=str(tmp_path / "files"))
    store.migrate()
    with store.write() as connection:
        path = store.storage.keep("line", b"weights")
        Registry(store).add(connection, "line", path, Record(model="line", sha256="1"), job=None, now=1.0)
    assert Registry(store).fetched(Registry(store).version("line", 1)) == path
    store.close()
    assert [one.name for one in (tmp_path / "files").iterdir()] == ["checkpoints"]
    assert {one.name.partition("-")[0] for one in (tmp_path / "store").iterdir()} == {"torchloop.db"}


def test_a_store_that_ignores_conditions_is_refused_at_the_start_and_after_an_outage(
    machines: Callable[..., Machine], s3: S3Server
) -> None:
    a = machines("a", s3.create_bucket())
    s3.honours_conditions = False
    try:
        with pytest.raises(SettingsError, match="TORCHLOOP_ARTIFACTS: the object store ignores conditional puts"):
            a.store.probe()
        assert "ignores conditional puts" in a.store.faults["objects"]
    finally:
        s3.honours_conditions = True
    b = machines("b", "s3://b-nowhere/prefix")
    with pytest.raises(SettingsError, match="no such bucket"):
        b.store.probe()
