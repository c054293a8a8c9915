"""Small predictions answered without a task: by the real application behind its own protocol, over sockets.

Each is also sent in chunks, which takes it the way of all others: what is answered must not depend on the way.
"""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.mnist import drawn_seven
from models.outputs import values
from models.spec import Array
from service.settings import Key
from tests.fakes import LINE, save_line
from tests.fast_ways import JSON, NPY, PNG, application, array, ask, ask_in_chunks, noted_ways, picture
from tests.sockets import Address, Connection
from tests.waiting import until


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with application(tmp_path_factory.mktemp("direct")) as address:
        yield address


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each small request: whether it was answered without a task."""
    return noted_ways(monkeypatch)


HUGE = picture(np.zeros((600, 600), np.uint8))
BODIES: dict[str, tuple[str, str, bytes, int]] = {
    "a PNG": ("mnist", PNG, picture(), 200),
    "bytes of no type": ("mnist", "application/octet-stream", picture(), 200),
    "a BMP": ("mnist", "image/bmp", picture(kind="bmp"), 200),
    "an array": ("mnist", NPY, array(np.stack([drawn_seven()] * 3)), 200),
    "a large array": ("mnist", NPY, array(np.stack([drawn_seven()] * 300)), 200),
    "JSON": ("regressor", "application/json; charset=utf-8", b'{"inputs": [[1], [2]]}', 200),
    "JSON with one bad sample": ("regressor", JSON, b'{"inputs": [[1], ["x"]]}', 200),
    "no JSON": ("regressor", JSON, b"{", 400),
    "bad samples alone": ("regressor", JSON, b'{"inputs": [["x"]]}', 422),
    "a blank page": ("mnist", PNG, picture(np.zeros((28, 28), np.uint8)), 422),
    "no picture": ("mnist", PNG, b"nothing", 422),
    "an empty body": ("mnist", PNG, b"", 422),
    "a pickled array": ("mnist", NPY, array(np.array([{}])), 422),
    "another type": ("mnist", "text/plain", b"seven", 415),
}


@pytest.mark.many
@pytest.mark.parametrize("name", BODIES)
def test_both_ways_give_the_same_answer(where: Address, name: str, taken: list[bool]) -> None:
    model, kind, body, status = BODIES[name]
    answer = ask(where, model, kind, body)
    assert answer[0] == status
    assert taken == ([] if status == 415 else [True])
    assert answer == ask_in_chunks(where, model, kind, body)
    assert len(taken) < 2


def test_npy_is_answered_where_it_is_asked_for(where: Address, taken: list[bool]) -> None:
    answer = ask(where, "mnist", PNG, picture(), Accept=NPY)
    assert answer == ask_in_chunks(where, "mnist", PNG, picture(), Accept=NPY)
    assert np.load(io.BytesIO(answer[1])).argmax() == 7
    assert taken == [True]


@pytest.mark.parametrize(
    ("body", "more", "path"),
    [
        (HUGE, {}, ""),
        (picture() + bytes(65_536), {}, ""),
        (picture(), {"Accept": "*/*", "accept": JSON}, ""),
        (picture(), {}, "?version=2"),
        (picture(), {}, "?version=one"),
        (picture(), {}, "?other=1"),
    ],
    ids=["many pixels", "many bytes", "a header twice", "a version that is not loaded", "no version", "another query"],
)
def test_large_or_unusual_requests_fall_through_to_the_application(
    where: Address,
    body: bytes,
    more: dict[str, str],
    path: str,
    taken: list[bool],
) -> None:
    answer = ask(where, f"mnist{path}", PNG, body, **more)
    assert answer == ask_in_chunks(where, f"mnist{path}", PNG, body, **more)
    assert True not in taken


def test_the_version_asked_for_answers_if_it_is_loaded(where: Address, taken: list[bool]) -> None:
    answer = ask(where, "mnist?version=1", PNG, picture())
    assert answer[0] == 200
    assert answer == ask_in_chunks(where, "mnist?version=1", PNG, picture())
    assert taken == [True]


def test_a_body_above_the_limit_is_too_large(tmp_path: Path, taken: list[bool]) -> None:
    save_line(tmp_path)
    body = b'{"inputs": [[1]]}'
    with application(tmp_path, {"line": LINE}, max_body_bytes=len(body)) as where:
        assert ask(where, "line", JSON, body)[0] == 200
        assert ask(where, "line", JSON, body + b" ")[0] == 413
    assert taken == [True]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": "Bearer k3y"}, 200)],
    ids=["none", "wrong", "right"],
)
def test_keys_are_asked_for(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    save_line(tmp_path)
    keys = (Key(scope="predict", secret="k3y"),)  # noqa: S106 - made up
    with application(tmp_path, {"line": LINE}, api_keys=keys) as where:
        assert ask(where, "line", JSON, b'{"inputs": [[1]]}', **headers)[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "elsewhere"}, 421), ({"Origin": "http://elsewhere"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403)],
    ids=["host", "origin", "site"],
)
def test_other_sites_are_kept_out(where: Address, headers: dict[str, str], status: int, taken: list[bool]) -> None:
    assert ask(where, "mnist", PNG, picture(), **headers)[0] == status
    assert not taken


def test_one_too_many_is_refused_and_all_are_counted(tmp_path: Path) -> None:
    save_line(tmp_path)
    go_on, begun = threading.Event(), threading.Event()
    go_on.set()

    def slow(outputs: Array) -> Array:
        begun.set()
        assert go_on.wait(60)
        return values(outputs)

    spec = replace(LINE, postprocess=slow)
    with (
        application(tmp_path, {"line": spec}, backend="eager", queue_limit=1) as where,
        ThreadPoolExecutor(2) as pool,
    ):

        def one() -> int:
            return ask(where, "line", JSON, b'{"inputs": [[1]]}')[0]

        def metrics() -> str:
            with Connection(where) as caller:
                caller.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return caller.answer()[1].decode()

        go_on.clear()
        begun.clear()
        computed = pool.submit(one)
        assert begun.wait(60)
        waits = pool.submit(one)
        until(lambda: "torchloop_waiting_requests 1.0" in metrics())
        assert one() == 429
        go_on.set()
        assert (computed.result(60), waits.result(60), one()) == (200, 200, 200)
        assert 'torchloop_requests_total{model="line",status="200"} 3.0' in metrics()
        assert 'torchloop_requests_total{model="line",status="429"} 1.0' in metrics()
        assert "torchloop_waiting_requests 0.0" in metrics()


def test_a_request_that_times_out_gets_504(tmp_path: Path) -> None:
    save_line(tmp_path)
    over = threading.Event()

    def slow(outputs: Array) -> Array:
        assert not armed.is_set() or over.wait(60)
        return values(outputs)

    armed = threading.Event()
    spec = replace(LINE, postprocess=slow)
    with application(tmp_path, {"line": spec}, backend="eager", request_timeout_s=0.05) as where:
        armed.set()
        status, content, _ = ask(where, "line", JSON, b'{"inputs": [[1]]}')
        over.set()
        assert (status, b"no answer within 0.05 s" in content) == (504, True)


@pytest.mark.many
@pytest.mark.parametrize("part", ["preprocess", "postprocess", "describe"])
def test_an_unexpected_exception_is_500_logged_and_counted(
    tmp_path: Path,
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save_line(tmp_path)
    broken = threading.Event()

    def breaks(*arguments: Any) -> Any:
        if broken.is_set():
            raise LookupError("a secret place")
        return getattr(LINE, part)(*arguments)

    changed: dict[str, Any] = {part: breaks}
    with application(tmp_path, {"line": replace(LINE, **changed)}) as where:
        broken.set()
        for way in (ask, ask_in_chunks):
            status, content, headers = way(where, "line", JSON, b'{"inputs": [[1]]}')
            assert (status, headers["content-type"]) == (500, "application/problem+json")
            assert b"secret" not in content
        broken.clear()
        assert ask(where, "line", JSON, b'{"inputs": [[1]]}')[0] == 200
        with Connection(where) as caller:
            caller.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b'torchloop_requests_total{model="line",status="500"} 2.0' in caller.answer()[1]
    assert "a secret place" in caplog.text


def test_an_unloaded_model_is_loaded_first_and_then_takes_the_fast_path(tmp_path: Path, taken: list[bool]) -> None:
    for name in ("a", "b"):
        save_line(tmp_path, name)
    with application(tmp_path, {"a": LINE, "b": LINE}, max_loaded=1) as where:
        answers = [ask(where, name, JSON, b'{"inputs": [[1]]}') for name in ("a", "b", "b", "a")]
        assert [status for status, *_ in answers] == [200] * 4
        assert taken[-1:] == [True]
        assert len(taken) in {1, 2}  # either of them was loaded at the start
