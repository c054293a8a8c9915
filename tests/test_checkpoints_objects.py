"""Objects in a real S3 server and in a folder: one writer wins, faults are told apart, a patient caller waits."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.objects import ENVIRONMENT, S3Server
from models.checkpoints.objects import Found, Objects, ObjectsRefused
from models.errors import ObjectsUnavailable

HIDDEN = "AKID-ABCDEF"


@pytest.fixture(params=["s3", "file"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each kind."""
    if request.param == "file":
        return Objects.at(f"file://{tmp_path}/objects")
    server: S3Server = request.getfixturevalue("s3")
    return Objects.at(server.create_bucket())


class Answering:
    """A server that gives the same answer to every request."""

    def __init__(self) -> None:
        self.answer = 200, ""
        self.length: int | None = None  # that it announces, if another than that of the answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = outer.answer
                self.send_response(status)
                self.send_header("Content-Length", str(outer.length or len(body)))
                self.send_header("Last-Modified", "Wed, 12 Oct 2022 17:50:00 GMT")
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - names of http.server

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Such a server, which is the endpoint meanwhile."""
    found = Answering()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{found.server.server_port}"}.items():
        monkeypatch.setenv(name, value)
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


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


@pytest.mark.parametrize(
    ("status", "body", "message", "why"),
    [
        (
            403,
            f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{HIDDEN}</AWSAccessKeyId></Error>",
            "refuses access",
            "status 403, SignatureDoesNotMatch",
        ),
        (401, HIDDEN, "refuses access", "status 401"),
        (
            400,
            f"<Error><Code>AuthorizationHeaderMalformed</Code>{HIDDEN}</Error>",
            "cannot be reached",
            "status 400, AuthorizationHeaderMalformed",
        ),
        (500, HIDDEN, "cannot be reached", "status 500"),
        (
            301,
            HIDDEN,
            "cannot be reached",
            "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
        ),
    ],
)
def test_an_answer_other_than_expected_is_named_without_what_may_be_secret(
    status: int, body: str, message: str, why: str, answering: Answering
) -> None:
    answering.answer = status, body
    objects = Objects.at("s3://bucket/prefix")
    ways: list[Callable[[], object]] = [
        lambda: objects.put("a", b"x"),
        lambda: objects.content("a"),
        lambda: objects.below("a"),
        lambda: objects.folders("a"),
        lambda: objects.delete(["a"]),
        objects.probe,
    ]
    for way in ways:
        with pytest.raises(ObjectsUnavailable, match=message) as caught:
            way()
        assert caught.value.why == why
        assert HIDDEN not in str(caught.value)


def test_the_cause_of_a_connection_that_fails_is_named(away: S3Server) -> None:
    with pytest.raises(ObjectsUnavailable) as caught:
        Objects.at("s3://bucket/prefix").exists("a")
    assert caught.value.why == "Connection refused"


@pytest.mark.parametrize("answer", ["nothing", "half of an answer"])
def test_half_an_answer_is_no_answer(answer: str, answering: Answering) -> None:
    answering.answer = 200, answer
    answering.length = 10 * len(answer)
    objects = Objects.at("s3://bucket/prefix")
    for way in (lambda: objects.content("a"), lambda: b"".join(objects.read("a")), lambda: objects.below("a")):
        with pytest.raises(ObjectsUnavailable, match="cannot be reached"):
            way()


def test_a_bucket_that_is_removed_meanwhile_is_named_and_is_no_fault_of_the_folder(
    s3: S3Server, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(17 * 2**20))
    objects = Objects.at("s3://never-made/prefix")
    for content in (b"x", large):
        with pytest.raises(ObjectsUnavailable, match="no such bucket: create it") as caught:
            objects.put("a", content)
        assert caught.value.why == "no such bucket"
    with pytest.raises(FileNotFoundError):
        objects.put("a", tmp_path / "none")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    "endpoint", ["minio.example:9000", "127.0.0.1", "http://", "ftp://x", "http://a b", "http://a:x", "http://ä"]
)
def test_an_endpoint_that_is_no_url_is_refused(name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, endpoint)
    with pytest.raises(ObjectsRefused, match=f"{name} is no URL of a server: write it as https://"):
        Objects.at("s3://bucket/prefix")


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
