"""Datasets over HTTP: what is listed, the reports of refused rows, and what erasing leaves."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.data.reports import page_of
from service.errors import Invalid
from service.store.database import Store
from tests.dataset_service import BUILT_IN, FILE, REFUSED, SUMMARY, VERSIONS, add, detail, made, serving_lines, work


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving_lines(tmp_path) as client:
        yield client


@pytest.fixture
def store(client: TestClient, tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


def test_the_report_has_pages_of_all_refused_rows(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.datasets.PAGE", 1)
    add(client, store)
    first = client.get(f"{VERSIONS}/1/report").json()
    assert (first["rows"], first["good"], first["rejected"], first["warnings"]) == (12, 10, 2, ["few rows"])
    assert first["by_reason"][0]["title"] == "Not a number"
    assert first["refused"] == REFUSED[:1]
    second = client.get(f"{VERSIONS}/1/report", params={"cursor": first["cursor"]}).json()
    assert (second["refused"], second["cursor"]) == (REFUSED[1:], None)
    assert "cursor" in detail(client.get(f"{VERSIONS}/1/report", params={"cursor": "3"}), 422)
    assert "cursor" in detail(client.get(f"{VERSIONS}/1/report", params={"cursor": "x"}), 422)


def test_files_with_equal_rows_have_reports_of_their_own(client: TestClient, store: Store, tmp_path: Path) -> None:
    first = add(client, store)
    client.post(VERSIONS, content=FILE)
    again = work(store, partial(made, summary=replace(SUMMARY, rejected=1, rows=11), refused=REFUSED[:1]))
    assert again.dataset == "field@1"
    path = f"{VERSIONS}/1/report"
    reports = [client.get(path, params={"job": job}).json() for job in (first["id"], again.id)]
    assert [(report["rejected"], report["refused"]) for report in reports] == [(2, REFUSED), (1, REFUSED[:1])]
    assert client.get(path).json() == reports[0]
    assert "did not make dataset field@1" in detail(client.get(path, params={"job": "0" * 32}), 404)
    assert client.delete(f"{VERSIONS}/1", params={"erase": "true"}).status_code == 204
    assert not list((tmp_path / "store/datasets/line/reports").iterdir())
    assert client.get(f"/jobs/{again.id}").json()["report"]["by_reason"][0]["first"] == []


def test_data_that_a_recipe_declares_is_listed_and_trained_on_before_any_version(client: TestClient) -> None:
    (found,) = client.get("/models/fixed/datasets").json()["datasets"]
    assert (found["dataset"], found["built_in"], found["examples"]) == ("lines@1", True, BUILT_IN["lines"])
    assert (found["created_at"], found["sha256"], found["trained"]) == (None, None, [])
    assert client.get("/models/fixed/datasets/lines/versions/1").json() == found
    trained = client.post("/train", json={"model": "fixed", "dataset": "lines@1"})
    assert (trained.status_code, trained.json()["dataset"]) == (202, None)


def test_erasing_removes_files_and_the_values_of_refused_rows(client: TestClient, store: Store, tmp_path: Path) -> None:
    job = add(client, store)
    folder = tmp_path / "store/datasets/line"
    assert client.delete(f"{VERSIONS}/1").status_code == 204
    assert (folder / ("a" * 64)).is_dir()
    assert client.delete(f"{VERSIONS}/1", params={"erase": "true"}).status_code == 204
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    found = client.get(f"{VERSIONS}/1").json()
    assert (found["erased"], found["rejected"]) == (True, 2)
    assert "erased" in detail(client.get(f"{VERSIONS}/1/report"), 404)
    assert client.get(f"/jobs/{job['id']}").json()["report"]["by_reason"][0]["first"] == []


def test_erasing_keeps_files_that_another_version_needs(client: TestClient, store: Store, tmp_path: Path) -> None:
    add(client, store)
    client.post("/models/line/datasets/other/versions", content=FILE)
    work(store, made)
    assert client.delete(f"{VERSIONS}/1", params={"erase": "true"}).status_code == 204
    assert client.get("/models/line/datasets/other/versions/1/report").json()["refused"] == REFUSED
    assert len(list((tmp_path / "store/datasets/line/originals").iterdir())) == 1


@pytest.mark.parametrize("begin", [1, 3, 10**17 - 1])
def test_a_cursor_that_no_page_has_is_refused(tmp_path: Path, begin: int) -> None:
    (tmp_path / "report.jsonl").write_bytes(b"1\n")
    with pytest.raises(Invalid, match="send the cursor of the page before"):
        page_of(tmp_path / "report.jsonl", begin, 9)
