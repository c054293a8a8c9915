"""Datasets over HTTP, with a worker whose subprocess answers by a script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.messages import Ingest, Progress, Progressed
from service.jobs.queue import MAX_ATTEMPTS, Jobs
from service.settings import Key
from service.store.database import Store
from tests.dataset_service import FILE, VERSIONS, add, detail, made, recipes, refusal, serving_lines, work
from tests.each import each_holds
from tests.fakes import LINE
from tests.serving import serving


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving_lines(tmp_path) as client:
        yield client


@pytest.fixture
def store(client: TestClient, tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    yield store
    store.close()


def test_a_small_file_becomes_a_version_by_a_job_of_kind_ingest(client: TestClient, store: Store) -> None:
    answer = client.post(
        VERSIONS, content=FILE, params={"format": "csv", "label_column": "value", "allow_rejected": 0.2}
    )
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert (job["kind"], job["model"], job["state"]) == ("ingest", "line", "queued")
    assert (job["dataset"], job["dataset_sha256"]) == ("field", None)
    orders: list[Ingest] = []

    def answered(order: Any) -> Any:
        orders.append(order)
        return made(order)

    work(store, answered)
    (order,) = orders
    assert order.source.read_bytes() == FILE
    assert (order.format, order.options.label_column, order.allow_rejected) == ("csv", "value", 0.2)
    assert (order.parent, order.config, order.attempt) == (None, {"epochs": 1}, 1)
    job = client.get(f"/jobs/{job['id']}").json()
    assert (job["state"], job["dataset"], job["dataset_sha256"]) == ("succeeded", "field@1", "a" * 64)
    assert job["report"]["rejected"] == 2
    found = client.get(f"{VERSIONS}/1").json()
    assert found["schema"] == {"entry": {"shape": [1]}}
    expected = {
        "dataset": "field@1",
        "built_in": False,
        "sha256": "a" * 64,
        "format": "csv",
        "job": job["id"],
        "parent": None,
        "examples": {"train": 8, "validation": 1, "test": 1},
        "reference": {"features": [[0.0], [4.0]]},
        "rows": 12,
        "rejected": 2,
        "added": 10,
        "warnings": ["few rows"],
        "deleted_at": None,
        "erased": False,
        "trained": [],
    }
    assert {name: found[name] for name in expected} == expected
    assert client.get("/models/line/datasets").json() == {"datasets": [found]}


def test_versions_are_numbered_and_grow_from_a_parent(client: TestClient, store: Store) -> None:
    add(client, store)
    job = add(client, store, "b" * 64, parent="field")
    assert job["dataset"] == "field@2"
    assert client.get(f"{VERSIONS}/2").json()["parent"] == "field@1"
    listed = [one["dataset"] for one in client.get("/models/line/datasets").json()["datasets"]]
    assert listed == ["field@1", "field@2"]


def test_the_same_rows_again_are_the_same_version(client: TestClient, store: Store) -> None:
    add(client, store)
    assert add(client, store)["dataset"] == "field@1"
    assert len(client.get("/models/line/datasets").json()["datasets"]) == 1


def test_a_refused_file_fails_its_job_with_a_report_and_is_not_kept(
    client: TestClient, store: Store, tmp_path: Path
) -> None:
    job = client.post(VERSIONS, content=FILE).json()
    work(store, refusal())
    job = client.get(f"/jobs/{job['id']}").json()
    assert (job["state"], job["error"]) == ("failed", {"title": "Too many rows refused", "detail": "row 3 is bad"})
    assert (job["report"]["rows"], job["report"]["good"]) == (12, 10)
    assert job["report"]["by_reason"][0]["first"][0]["row"] == 3
    assert not list((tmp_path / "store/datasets/line/originals").iterdir())
    assert client.get("/models/line/datasets").json() == {"datasets": []}


def test_an_ingest_whose_subprocess_is_killed_is_tried_again(client: TestClient, store: Store) -> None:
    job = client.post(VERSIONS, content=FILE).json()
    assert work(store, lambda _: None).state == "queued"
    assert work(store, made).attempt == 2
    job = client.get(f"/jobs/{job['id']}").json()
    assert (job["state"], job["dataset"]) == ("succeeded", "field@1")


def test_the_events_of_an_ingest_are_its_progress_and_states(client: TestClient, store: Store) -> None:
    job = client.post(VERSIONS, content=FILE).json()
    point = Progress(epoch=0, epochs=1, step=5, steps=12, loss=0.0)
    work(store, lambda order: [Progressed(point=point), made(order)])
    events = client.get(f"/jobs/{job['id']}/events").text
    assert [line for line in events.splitlines() if line.startswith("event:")] == [
        "event: state",
        "event: state",
        "event: progress",
        "event: state",
    ]
    assert '"dataset":"field@1"' in events
    assert client.get(f"/jobs/{job['id']}").json()["progress"]["step"] == 5
    (listed,) = client.get("/jobs").json()["jobs"]
    assert listed["report"]["by_reason"][0]["first"] == []


def test_a_cancelled_ingest_leaves_no_version(client: TestClient, store: Store, tmp_path: Path) -> None:
    job = client.post(VERSIONS, content=FILE).json()

    def cancelled_meanwhile(order: Any) -> Any:
        assert client.post(f"/jobs/{job['id']}/cancel").status_code == 202
        return made(order)

    assert work(store, cancelled_meanwhile).state == "cancelled"
    assert client.get("/models/line/datasets").json() == {"datasets": []}
    assert not list((tmp_path / "store/datasets/line/originals").iterdir())


@pytest.mark.parametrize("path", ["/jobs/{}/cancel", "/jobs?state=queued"])
def test_the_file_of_an_ingest_that_is_cancelled_in_the_queue_is_removed(
    client: TestClient, path: str, tmp_path: Path
) -> None:
    first, second = (client.post(VERSIONS, content=FILE).json()["id"] for _ in range(2))
    originals = tmp_path / "store/datasets/line/originals"
    client.post(f"/jobs/{first}/cancel")
    assert len(list(originals.iterdir())) == 1  # the second job needs it
    assert client.request("POST" if "cancel" in path else "DELETE", path.format(second)).is_success
    assert not list(originals.iterdir())


def test_the_file_of_an_ingest_that_is_given_up_is_removed(client: TestClient, store: Store, tmp_path: Path) -> None:
    client.post(VERSIONS, content=FILE)
    for _ in range(MAX_ATTEMPTS):
        assert work(store, lambda _: None).state == "queued"
    assert Jobs(store).claim("w", now=0, monotonic_s=0, lease_s=1) is None
    assert client.get("/jobs").json()["jobs"][0]["error"]["title"] == "Gave up"
    assert not list((tmp_path / "store/datasets/line/originals").iterdir())


def test_a_repeated_idempotency_key_gives_the_first_ingest(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post(VERSIONS, content=FILE, headers=headers).json()
    assert client.post(VERSIONS, content=FILE, headers=headers).json() == first
    other = client.post(VERSIONS, content=b"other", headers=headers)
    assert "sent with another order" in detail(other, 422)
    assert len(client.get("/jobs").json()["jobs"]) == 1


def test_training_pins_the_newest_version_of_a_name(client: TestClient, store: Store) -> None:
    add(client, store)
    body = {"model": "line", "dataset": "field"}
    job = client.post("/train", json=body, headers={"Idempotency-Key": "k"}).json()
    assert (job["kind"], job["dataset"], job["dataset_sha256"]) == ("train", "field@1", "a" * 64)
    add_later = client.post(VERSIONS, content=b"later").json()
    assert add_later["state"] == "queued"
    again = client.post("/train", json=body, headers={"Idempotency-Key": "k"})
    assert again.json()["id"] == job["id"]
    other = client.post("/train", json={**body, "dataset": "other"}, headers={"Idempotency-Key": "k"})
    assert "sent with another order" in detail(other, 422)


def test_an_unknown_dataset_to_train_on_is_refused(client: TestClient, store: Store) -> None:
    add(client, store)
    cases = [
        ("field@2", 404, "line has no dataset field@2 made of a file; GET /models/line/datasets lists them"),
        ("none", 404, "line has no dataset none"),
        ("Field@1", 422, "write it as name@version"),
        ("field@0", 422, "write it as name@version"),
        ("field@1\n", 422, "write it as name@version"),
        ("field@999999999", 404, "has no dataset"),
    ]

    def refused(case: tuple[str, int, str]) -> None:
        dataset, status, words = case
        assert words in detail(client.post("/train", json={"model": "line", "dataset": dataset}), status)

    each_holds(refused, cases)


def test_a_recipe_without_a_target_learns_no_files(client: TestClient) -> None:
    words = 'fixed cannot be trained on files: add target="label" or target="value" to training/fixed.py'
    assert detail(client.post("/train", json={"model": "fixed", "dataset": "field@1"}), 422) == words
    assert detail(client.post("/models/fixed/datasets/field/versions", content=FILE), 422) == words
    begun = client.post("/models/fixed/datasets/field/uploads", json={"bytes": 3})
    assert detail(begun, 422) == words
    assert "bare has no recipe" in detail(client.post("/models/bare/datasets/field/versions", content=FILE), 422)


def test_a_form_and_an_empty_body_are_no_file(client: TestClient) -> None:
    path, words = "/models/line/datasets/field/versions", "send the file itself as the body: curl --data-binary @FILE"
    assert detail(client.post(path, files={"file": FILE}), 415) == f"forms are not read: {words}"
    assert detail(client.post(path, content=b""), 422) == f"the body is empty: {words}"
    assert client.get("/jobs").json()["jobs"] == []


def test_a_bad_name_of_a_dataset_is_refused(client: TestClient) -> None:
    def refused(name: str) -> None:
        assert "name" in detail(client.post(f"/models/line/datasets/{name}/versions", content=FILE), 422)

    each_holds(refused, ["Field", "-a", "a" * 65, "a.b", "ä"])


def test_bad_parameters_of_a_file_are_named(client: TestClient) -> None:
    cases = [
        ({"allow_rejected": "2"}, "allow_rejected"),
        ({"format": "A B"}, "format"),
        ({"label_column": ""}, "label_column"),
        ({"parent": "Field"}, "write it as name@version"),
    ]

    def named(case: tuple[dict[str, str], str]) -> None:
        params, words = case
        assert words in detail(client.post(VERSIONS, content=FILE, params=params), 422)
        assert client.get("/jobs").json()["jobs"] == []

    each_holds(named, cases)


def test_an_unknown_parent_is_refused_and_the_file_not_kept(client: TestClient, tmp_path: Path) -> None:
    assert "no dataset field@3" in detail(client.post(VERSIONS, content=FILE, params={"parent": "field@3"}), 404)
    assert not list((tmp_path / "store/uploads").iterdir())


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, {"line": LINE}, recipes, max_dataset_bytes=10) as client:
        assert "raise TORCHLOOP_MAX_DATASET_BYTES" in detail(client.post(VERSIONS, content=b"x" * 11), 413)
        begun = client.post("/models/line/datasets/field/uploads", json={"bytes": 11})
        assert "a dataset file may have 10: compress it" in detail(begun, 413)


def test_a_deleted_version_is_not_listed_and_not_trained_on(client: TestClient, store: Store) -> None:
    add(client, store)
    add(client, store, "b" * 64)
    assert client.delete(f"{VERSIONS}/2").status_code == 204
    assert [one["dataset"] for one in client.get("/models/line/datasets").json()["datasets"]] == ["field@1"]
    assert client.get(f"{VERSIONS}/2").json()["deleted_at"].endswith("Z")
    job = client.post("/train", json={"model": "line", "dataset": "field"}).json()
    assert job["dataset"] == "field@1"
    client.post(f"/jobs/{job['id']}/cancel")
    trained = client.post("/train", json={"model": "line", "dataset": "field@2"})
    assert "dataset field@2 of line was deleted" in detail(trained, 404)
    assert "has no dataset field@2" in detail(client.delete(f"{VERSIONS}/2"), 404)
    assert add(client, store, "c" * 64)["dataset"] == "field@3"


def test_a_version_in_use_is_not_deleted(client: TestClient, store: Store) -> None:
    add(client, store)
    job = client.post("/train", json={"model": "line", "dataset": "field"}).json()
    assert f"job {job['id']} uses field@1" in detail(client.delete(f"{VERSIONS}/1"), 409)
    client.post(f"/jobs/{job['id']}/cancel")
    growing = client.post(VERSIONS, content=b"more", params={"parent": "field@1"}).json()
    assert f"job {growing['id']} uses field@1" in detail(client.delete(f"{VERSIONS}/1"), 409)
    work(store, lambda order: made(order, "b" * 64))
    assert "field@2 has grown from field@1: delete that version first" in detail(client.delete(f"{VERSIONS}/1"), 409)
    assert client.delete(f"{VERSIONS}/2").status_code == 204
    erased = client.delete(f"{VERSIONS}/1", params={"erase": "true"})
    assert "field@2 has grown from field@1: erase that version first" in detail(erased, 409)
    assert client.delete(f"{VERSIONS}/1").status_code == 204


def test_an_ingest_is_given_the_files_of_all_versions_of_its_name(client: TestClient, store: Store) -> None:
    for sha256 in "abb":  # the third is the second again
        add(client, store, sha256 * 64)
    assert client.delete(f"{VERSIONS}/1").status_code == 204
    client.post("/models/line/datasets/other/versions", content=b"other")
    work(store, lambda order: made(order, "c" * 64))
    kin: list[list[str]] = []

    def answered(order: Any) -> Any:
        kin.append([folder.name[0] for folder in order.kin])
        refused = client.delete(f"{VERSIONS}/{len(kin)}", params={"erase": "true"})
        assert f"job {order.job} uses field@{len(kin)}" in detail(refused, 409)
        return made(order, "de"[len(kin) - 1] * 64)

    client.post(VERSIONS, content=b"new")
    assert work(store, answered).dataset == "field@3"
    assert client.delete(f"{VERSIONS}/1", params={"erase": "true"}).status_code == 204
    client.post(VERSIONS, content=b"newer", params={"parent": "field@2"})
    assert work(store, answered).dataset == "field@4"
    assert kin == [["a", "b"], ["d"]]


def test_unknown_datasets_and_uploads_are_404(client: TestClient) -> None:
    paths = [
        "/models/line/datasets/field/versions/1",
        "/models/line/datasets/field/versions/99999999999",
        "/models/line/datasets/field/versions/1/report",
        "/models/none/datasets",
        "/models/none/datasets/field/versions/1",
        "/uploads/none",
    ]

    def unknown(path: str) -> None:
        detail(client.get(path), 404)

    each_holds(unknown, paths)


def test_files_erased_during_an_equal_ingest_are_made_again(client: TestClient, store: Store, tmp_path: Path) -> None:
    add(client, store)
    client.post("/models/line/datasets/other/versions", content=b"other")

    def erased_meanwhile(order: Any) -> Any:
        result = made(order)
        assert client.delete(f"{VERSIONS}/1", params={"erase": "true"}).status_code == 204
        return result

    assert work(store, erased_meanwhile).state == "queued"
    assert work(store, made).dataset == "other@1"
    assert (tmp_path / "store/datasets/line" / ("a" * 64)).is_dir()


def test_scopes_of_dataset_routes(tmp_path: Path) -> None:
    keys = (Key(scope="predict", secret="p"), Key(scope="train", secret="t"))  # noqa: S106
    predict, train = {"Authorization": "Bearer p"}, {"Authorization": "Bearer t"}
    with serving(tmp_path, {"line": LINE}, recipes, api_keys=keys) as client:
        uploads = "/models/line/datasets/field/uploads"
        for method, path in [
            ("POST", VERSIONS),
            ("POST", uploads),
            ("PUT", "/uploads/none?offset=0"),
            ("DELETE", "/uploads/none"),
            ("POST", "/uploads/none/finish"),
            ("DELETE", f"{VERSIONS}/1"),
        ]:
            assert "scope train" in detail(client.request(method, path, headers=predict), 403)
            assert client.request(method, path).status_code == 401
        assert client.get("/models/line/datasets", headers=predict).status_code == 200
        begun = client.post(uploads, json={"bytes": 3}, headers=train)
        assert begun.status_code == 201
        assert client.get(begun.headers["location"], headers=predict).status_code == 200
        assert client.post(VERSIONS, content=FILE, headers=train).status_code == 202
