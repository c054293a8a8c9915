"""Uploads in parts: offsets, resuming, checks, expiry; by HTTP and on the table."""

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from models.checkpoints.storage import Storage
from service.data.uploads import EXPIRY_S, MOST_OPEN, Upload, Uploads
from service.errors import Conflict, Invalid, LimitReached, NotFound, StoreUnavailable, TooLarge
from service.jobs.ingests import Ingests
from service.jobs.queue import Jobs
from service.store.database import Store
from tests.dataset_service import made, recipes, work
from tests.fakes import LINE
from tests.serving import serving
from tests.templates import migrated

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BULK = "x" * 100_000  # more than a page of the database
UPLOADS = "/models/line/datasets/field/uploads"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(tmp_path / "none", {"line": LINE}, recipes, store=tmp_path / "store") as client:
        yield client


@pytest.fixture
def uploads(store: Store) -> Uploads:
    return Uploads(store, 10**6)


def begin(client: TestClient, **body: Any) -> str:
    answer = client.post(UPLOADS, json={"bytes": len(CONTENT), **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/uploads/{answer.json()['upload']}"
    return str(answer.headers["location"])


def put(client: TestClient, upload: str, offset: int, content: bytes, **headers: str) -> Any:
    return client.put(upload, params={"offset": offset}, content=content, headers=headers)


def detail(answer: Any, status: int) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    return str(answer.json()["detail"])


def test_a_file_in_parts_becomes_a_dataset_version(client: TestClient, tmp_path: Path) -> None:
    upload = begin(client, sha256=SHA256, format="csv", options={"label_column": "value"})
    found = client.get(upload).json()
    assert (found["dataset"], found["bytes"], found["received"], found["job"]) == ("field", len(CONTENT), 0, None)
    assert found["part_bytes"] > 0
    assert put(client, upload, 0, CONTENT[:5000]).json() == {"received": 5000}
    assert client.get(upload).json()["received"] == 5000
    assert put(client, upload, 5000, CONTENT[5000:]).json() == {"received": len(CONTENT)}
    answer = client.post(f"{upload}/finish", json={"allow_rejected": 0.1})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert (job["kind"], job["dataset"]) == ("ingest", "field")
    assert client.post(f"{upload}/finish").json()["id"] == job["id"]
    assert client.get(upload).json()["job"] == job["id"]
    assert client.get(upload).json()["received"] == len(CONTENT)
    store = Store(tmp_path / "store")
    orders: list[Any] = []

    def answered(order: Any) -> Any:
        orders.append(order)
        assert order.source.read_bytes() == CONTENT
        return made(order)

    assert work(store, answered).dataset == "field@1"
    store.close()
    assert (orders[0].format, orders[0].options.label_column, orders[0].allow_rejected) == ("csv", "value", 0.1)
    assert client.get("/models/line/datasets/field/versions/1").json()["dataset"] == "field@1"


def test_two_requests_that_finish_an_upload_queue_one_job(client: TestClient, tmp_path: Path) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT)
    store = Store(tmp_path / "store")
    uploads = Uploads(store, 10**6)
    stale = uploads.get(upload.rpartition("/")[2])  # read before the other request has finished it
    job = client.post(f"{upload}/finish").json()["id"]
    again = Ingests(store, Jobs(store)).finish_upload(
        uploads, stale, {}, parent=None, allow_rejected=0.0, submitter="", most=10, now=0.0
    )
    assert again.id == job
    assert len(client.get("/jobs").json()["jobs"]) == 1
    store.close()


def test_a_wrong_offset_is_refused_with_the_right_one(client: TestClient) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT[:100])
    for offset in (0, 99, 101, 10**9):
        answer = put(client, upload, offset, CONTENT[100:])
        assert f"100 bytes have arrived, so the next part begins at offset 100, not {offset}" in detail(answer, 409)
        assert answer.headers["upload-offset"] == "100"
    assert client.get(upload).json()["received"] == 100


def test_a_part_beyond_the_announced_size_is_refused(client: TestClient) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT[:100])
    words = detail(put(client, upload, 100, CONTENT), 413)
    assert f"the upload was begun with {len(CONTENT)} bytes, of which 100 have arrived" in words


def test_an_upload_survives_a_transaction_that_fails_at_its_end(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT)
    hand_over = Uploads.hand_over

    def failing(self: Uploads, *values: Any) -> None:
        hand_over(self, *values)
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "hand_over", failing)
        assert client.post(f"{upload}/finish").status_code == 503
    assert client.get(upload).json()["received"] == len(CONTENT)
    assert client.post(f"{upload}/finish").status_code == 202
    assert not list((tmp_path / "store/uploads").iterdir())
    originals = list((tmp_path / "store/datasets/line/originals").iterdir())
    assert [path.read_bytes() for path in originals] == [CONTENT]


def test_an_incomplete_upload_is_not_finished(client: TestClient) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT[:100])
    answer = client.post(f"{upload}/finish")
    assert f"100 of {len(CONTENT)} bytes have arrived: send the rest, from offset 100" in detail(answer, 409)
    assert answer.headers["upload-offset"] == "100"
    assert client.get("/jobs").json()["jobs"] == []


def test_another_content_than_announced_is_refused(client: TestClient) -> None:
    upload = begin(client, sha256=SHA256)
    put(client, upload, 0, CONTENT[::-1])
    assert f"not {SHA256} as announced" in detail(client.post(f"{upload}/finish"), 422)
    assert client.get("/jobs").json()["jobs"] == []


def test_an_unknown_parent_can_be_corrected(client: TestClient) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT)
    assert "no dataset field@7" in detail(client.post(f"{upload}/finish", json={"parent": "field@7"}), 404)
    assert client.post(f"{upload}/finish").status_code == 202


def test_parts_are_sent_without_content_encoding(client: TestClient) -> None:
    answer = put(client, begin(client), 0, b"x", **{"Content-Encoding": "gzip"})
    assert "compress the file before the upload" in detail(answer, 415)


@pytest.mark.many
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": "3"}, "bytes"),
        ({}, "bytes"),
        ({"bytes": 3, "sha256": "abc"}, "sha256"),
        ({"bytes": 3, "format": "A"}, "format"),
        ({"bytes": 3, "options": {"label": "x"}}, "label is not a field; the fields are label_column"),
        ({"bytes": 3, "size": 3}, "size is not a field"),
    ],
)
def test_bad_fields_of_an_upload_are_named(client: TestClient, body: dict[str, Any], words: str) -> None:
    assert words in detail(client.post(UPLOADS, json=body), 422)


def test_a_removed_upload_is_gone(client: TestClient, tmp_path: Path) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT[:10])
    assert client.delete(upload).status_code == 204
    assert not list((tmp_path / "store/uploads").iterdir())
    for answer in (client.get(upload), client.delete(upload), put(client, upload, 10, b"x")):
        assert "unknown upload" in detail(answer, 404)


def test_a_finished_upload_takes_no_part_and_is_not_removed(client: TestClient) -> None:
    upload = begin(client)
    put(client, upload, 0, CONTENT)
    job = client.post(f"{upload}/finish").json()["id"]
    assert f"is finished: see GET /jobs/{job}" in detail(put(client, upload, len(CONTENT), b"x"), 409)
    assert f"cancel its job with POST /jobs/{job}/cancel" in detail(client.delete(upload), 409)


def started(uploads: Uploads, size: int = len(CONTENT), now: float = 0.0, **options: Any) -> Upload:
    given = {"sha256": None, "form": "auto", "options": {}, **options}
    return uploads.begin("line", "field", size, now=now, **given)


async def parts_of(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


def send(uploads: Uploads, upload: Upload, offset: int, content: bytes) -> int:
    with uploads.part(upload, offset) as part:
        return asyncio.run(part.write(parts_of(content)))


def test_two_parts_at_once_are_not_mixed(store: Store, uploads: Uploads) -> None:
    """Also in two processes: the lock is of the file."""
    upload, other = started(uploads), Uploads(store, 10**6)
    with uploads.part(upload, 0) as part:
        with pytest.raises(Conflict, match="send one part after the other"), other.part(upload, 0):
            pass
        with pytest.raises(Conflict, match="send one part after the other"):
            other.digest(upload)
        asyncio.run(part.write(parts_of(CONTENT[:10])))
    assert send(other, upload, 10, CONTENT[10:]) == len(CONTENT)
    assert uploads.digest(upload) == SHA256


def test_a_part_that_breaks_off_is_continued_where_it_ended(uploads: Uploads) -> None:
    upload = started(uploads)

    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT[:3000]
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect), uploads.part(upload, 0) as part:
        asyncio.run(part.write(broken()))
    assert uploads.received(upload) == 3000
    assert send(uploads, upload, 3000, CONTENT[3000:]) == len(CONTENT)
    assert uploads.digest(upload) == SHA256


def test_an_upload_expires_a_day_after_its_last_part(store: Store, uploads: Uploads) -> None:
    first, second = started(uploads), started(uploads)
    path = Storage(store.folder).incoming
    for upload, at in ((first, 0.0), (second, 1000.0)):
        os.utime(path(upload.id), (at, at))
    assert uploads.expires_at(second) == 1000 + EXPIRY_S
    assert uploads.sweep(EXPIRY_S - 1) == 0
    assert uploads.sweep(EXPIRY_S + 999) == 1
    with pytest.raises(NotFound, match="it has expired"):
        uploads.get(first.id)
    assert not path(first.id).exists()
    started(uploads, now=EXPIRY_S + 1001)  # each upload that begins sweeps
    with pytest.raises(NotFound):
        uploads.get(second.id)


def test_an_upload_whose_file_is_gone_is_unknown(store: Store, uploads: Uploads) -> None:
    upload = started(uploads)
    Storage(store.folder).incoming(upload.id).unlink()
    with pytest.raises(NotFound):
        uploads.received(upload)
    with pytest.raises(NotFound), uploads.part(upload, 0):
        pass
    with pytest.raises(NotFound):
        uploads.digest(upload)


def test_sizes_and_numbers_of_uploads_are_limited(store: Store, uploads: Uploads) -> None:
    with pytest.raises(TooLarge, match="TORCHLOOP_MAX_DATASET_BYTES"):
        started(uploads, 10**6 + 1)
    for _ in range(MOST_OPEN):
        started(uploads, 1)
    with pytest.raises(LimitReached, match="DELETE /uploads/ID"):
        started(uploads, 1)
    assert len(list((store.folder / "uploads").iterdir())) == MOST_OPEN


def test_a_digest_needs_the_announced_content(uploads: Uploads) -> None:
    upload = started(uploads, 3, sha256="0" * 64)
    send(uploads, upload, 0, b"abc")
    with pytest.raises(Invalid, match="send the file again"):
        uploads.digest(upload)


def test_a_killed_process_leaves_no_file_for_longer_than_a_day(store: Store, uploads: Uploads) -> None:
    with uploads.whole() as part:
        asyncio.run(part.write(parts_of(b"abc")))
        left = part.path.with_name("left")
        os.link(part.path, left)
        os.utime(left, (0, 0))
        assert Storage(store.folder).remove_abandoned(10**6) == 0  # it is being written
    assert not part.path.exists()
    assert Storage(store.folder).remove_abandoned(10**6) == 1
    assert not left.exists()


def test_an_upload_that_a_full_database_refuses_leaves_no_file(tmp_path: Path) -> None:
    migrated(tmp_path)

    def fill(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # SQLite takes the present size instead

    event.listen(Engine, "connect", fill)
    full = Store(tmp_path)
    try:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="full"):
                Uploads(full, 10**6).begin("line", "x" * 60, 9, sha256=None, form="csv", options={"a": BULK}, now=0.0)
    finally:
        event.remove(Engine, "connect", fill)
        full.close()
    assert not [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
