"""Thumbnails of dataset rows over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from models.checkpoints.storage import Storage
from models.messages import Ingest
from service.settings import Key
from service.store.database import Store
from tests.dataset_files import png
from tests.dataset_service import made, recipes, refusal, work
from tests.each import each_holds
from tests.fakes import LINE, save_line
from tests.serving import serving

VERSIONS = "/models/line/datasets/field/versions"
DIGEST = "d" * 64
PNG = png(np.zeros((8, 8), np.uint8))
EXAMPLES = [{"digest": DIGEST, "label": "cat", "split": "test"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    shipped = tmp_path_factory.mktemp("shipped")
    save_line(shipped)
    with serving(shipped, {"line": LINE}, recipes, store=folder) as client:
        yield client


@pytest.fixture(scope="module")
def store(client: TestClient, folder: Path) -> Iterator[Store]:
    assert client
    store = Store(folder)
    add(client, store, "field", "a")
    yield store
    store.close()


def pictured(order: Ingest, version: Path, content: bytes = PNG) -> None:
    """Write thumbnails as the training side does, into the folders of a version and of the job."""
    folder, rows = version / "thumbnails", Storage(order.store.root).refused_rows(order.model, order.job)
    folder.mkdir(parents=True, exist_ok=True)
    rows.mkdir(parents=True, exist_ok=True)
    (folder / "examples.json").write_bytes(orjson.dumps(EXAMPLES))
    for path in (folder / f"{DIGEST}.png", rows / "3.png"):
        path.write_bytes(content)


def add(client: TestClient, store: Store, name: str, digit: str, content: bytes | None = PNG) -> str:
    """Make version 1 of a dataset whose SHA-256 repeats a digit. Returns its address."""

    def answer(order: Any) -> Any:
        done = made(order, digit * 64)
        if content is not None:
            pictured(order, order.store.root / done.folder, content)
        return done

    address = f"/models/line/datasets/{name}/versions"
    client.post(address, content=b"x,value\n1,3\n")
    work(store, answer)
    return f"{address}/1"


def missing(answer: Any) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), answer.text
    return str(answer.json()["detail"])


@pytest.mark.usefixtures("store")
def test_examples_and_refused_rows_are_png_files_that_nothing_executes(client: TestClient) -> None:
    assert client.get(f"{VERSIONS}/1/examples").json() == {"dataset": "field@1", "examples": EXAMPLES}
    for path in (f"examples/{DIGEST}.png", "refused/3.png"):
        answer = client.get(f"{VERSIONS}/1/{path}")
        assert (answer.status_code, answer.content) == (200, PNG)
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_a_version_without_thumbnails_has_none(client: TestClient, store: Store) -> None:
    address = add(client, store, "bare", "b", None)
    assert client.get(f"{address}/examples").json()["examples"] == []
    assert "no thumbnail" in missing(client.get(f"{address}/refused/3.png"))


def test_a_failed_ingest_shows_the_rows_that_it_refused(client: TestClient, store: Store) -> None:
    def refused(order: Any) -> Any:
        pictured(order, order.store.root / "elsewhere")
        return refusal()(order)

    job = client.post(VERSIONS, content=b"x").json()["id"]
    work(store, refused)
    assert client.get(f"/jobs/{job}/refused/3.png").content == PNG
    assert "no thumbnail" in missing(client.get(f"/jobs/{job}/refused/4.png"))
    assert "unknown job" in missing(client.get("/jobs/none/refused/3.png"))


def test_files_that_are_no_small_png_are_not_sent(client: TestClient, store: Store) -> None:
    def is_held_back(case: tuple[str, bytes]) -> None:
        address = add(client, store, f"odd-{case[0]}", case[0], case[1])
        for path in (f"examples/{DIGEST}.png", "refused/3.png"):
            assert "no thumbnail" in missing(client.get(f"{address}/{path}"))

    each_holds(is_held_back, [("e", b"<svg/>"), ("f", b""), ("0", PNG + bytes(70_000))])


@pytest.mark.usefixtures("store")
def test_addresses_of_no_thumbnail_are_errors(client: TestClient) -> None:
    def answers(case: tuple[str, int]) -> None:
        path, status = case
        answer = client.get(f"{VERSIONS}/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")

    cases = [
        (f"1/examples/{'e' * 64}.png", 404),
        (f"2/examples/{DIGEST}.png", 404),
        ("2/examples", 404),
        ("2/refused/3.png", 404),
        ("1/examples/..%2F..%2Freport.png", 404),
        ("1/examples/abc.png", 422),
        ("1/refused/abc.png", 422),
        ("1/refused/-1.png", 422),
        (f"1/refused/{'9' * 300}.png", 422),
    ]
    each_holds(answers, cases)


def test_thumbnails_of_erased_rows_are_gone(client: TestClient, store: Store) -> None:
    address = add(client, store, "gone", "d")
    job = client.get(address).json()["job"]
    assert client.get(f"/jobs/{job}/refused/3.png").content == PNG
    assert client.delete(f"{address}?erase=true").status_code == 204
    missing(client.get(f"/jobs/{job}/refused/3.png"))
    for path in ("examples", f"examples/{DIGEST}.png", "refused/3.png"):
        assert "erased" in missing(client.get(f"{address}/{path}"))


def test_thumbnails_need_the_scope_of_reading_datasets(tmp_path: Path) -> None:
    keys = (Key(scope="predict", secret="p"),)  # noqa: S106
    with serving(tmp_path, {"line": LINE}, recipes, api_keys=keys) as client:
        paths = [f"{VERSIONS}/1/{path}" for path in ("examples", f"examples/{DIGEST}.png", "refused/3.png")]
        for path in [*paths, "/jobs/none/refused/3.png"]:
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer p"}).status_code == 404
