"""Objects in a real S3 server and in a folder: one writer wins, faults are told apart, a patient caller waits."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.objects import S3Server
from models.checkpoints.objects import Found, Objects, ObjectsRefused
from models.errors import ObjectsUnavailable


@pytest.fixture(params=["s3", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    if request.param == "file":
        return Objects.at(f"file://{tmp_path}/objects")
    server: S3Server = request.getfixturevalue("s3")
    return Objects.at(server.create_bucket())


@pytest.fixture
def away(s3: S3Server) -> Iterator[S3Server]:
    """A server that is stopped during the test."""
    s3.stop()
    yield s3
    s3.start()


def test_an_object_is_put_once_and_read_listed_and_deleted(objects: Objects, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 70_000)  # 17 MiB, in parts
    assert objects.below("") == []
    assert objects.put("a/b/one", b"first")
    assert not objects.put("a/b/one", b"second")
    assert objects.put("a/empty", b"")
    assert objects.put("a/large", large)
    assert not objects.put("a/large", large)
    assert objects.content("a/b/one") == b"first"
    assert b"".join(objects.read("a/large")) == large.read_bytes()
    assert [b"".join(objects.read(f"a/{name}")) for name in ("empty", "b/one")] == [b"", b"first"]
    assert [(found.key, found.bytes) for found in objects.below("a")] == [
        ("a/b/one", 5),
        ("a/empty", 0),
        ("a/large", large.stat().st_size),
    ]
    assert all(isinstance(found, Found) and found.modified > 1e9 for found in objects.below("a/b"))
    assert (objects.folders("a"), objects.folders("nowhere")) == (["b"], [])
    assert (objects.exists("a/b/one"), objects.exists("a/b")) == (True, False)
    objects.delete(["a/b/one", "a/b/never"])
    assert not objects.exists("a/b/one")
    with pytest.raises(FileNotFoundError):
        list(objects.read("a/b/one"))


def test_the_probe_accepts_stores_in_which_one_writer_wins_and_leaves_nothing(objects: Objects) -> None:
    objects.probe()
    assert objects.below("") == []


def test_the_probe_refuses_a_store_that_ignores_conditions(s3: S3Server) -> None:
    objects = Objects.at(s3.create_bucket())
    s3.honours_conditions = False
    try:
        with pytest.raises(ObjectsRefused, match=r"ignores conditional puts \(If-None-Match\)"):
            objects.probe()
    finally:
        s3.honours_conditions = True


def test_the_probe_names_a_bucket_that_is_not_there(s3: S3Server) -> None:
    with pytest.raises(ObjectsRefused, match="no such bucket: create it"):
        Objects.at("s3://b-nowhere/prefix").probe()


def test_an_object_store_that_is_away_is_named_without_its_address(away: S3Server) -> None:
    objects = Objects.at("s3://bucket/prefix")
    for access in (
        objects.probe,
        lambda: objects.put("a", b""),
        lambda: objects.below("a"),
        lambda: objects.content("a"),
    ):
        with pytest.raises(ObjectsUnavailable, match=r"^the object store cannot be reached or used; try again"):
            access()


def test_a_patient_caller_waits_until_the_object_store_is_back(s3: S3Server) -> None:
    url = s3.create_bucket()
    Objects.at(url).put("a", b"content")
    refused, found = threading.Event(), []

    class Watch:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, *_: object) -> None:
            if kind is ObjectsUnavailable:
                refused.set()

    patient = Objects.at(url, watch=Watch, patient=True)
    thread = threading.Thread(target=lambda: found.append(patient.content("a")))
    s3.stop()
    try:
        thread.start()
        assert refused.wait(60)
        with pytest.raises(ObjectsUnavailable):
            patient.hasty.content("a")
    finally:
        s3.start()
    thread.join(60)
    assert found == [b"content"]


@pytest.mark.parametrize("url", ["s3://", "nonsense://bucket"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ObjectsRefused, match="check its URL and the variables"):
        Objects.at(url)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ObjectsRefused, match=r'pip install "torchloop\[s3\]"'):
        Objects.at("s3://bucket/prefix")
