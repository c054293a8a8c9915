"""Observers of predictions."""

import asyncio
import logging
from collections.abc import Mapping

import numpy as np
import pytest

from service.telemetry.served import Observers, Served, by_name, may_be_kept


class Noting:
    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[Served] = []
        self._error = error

    def wants(self, headers: Mapping[bytes, bytes], stem: str, size: int | None) -> bool:  # noqa: ARG002 - see Observer
        return b"x-skip" not in headers and bool(stem)

    def ended(self, served: Served) -> None:
        self.seen.append(served)
        if self._error is not None:
            raise self._error


def served(model: str = "line", **headers: bytes) -> Served:
    return Served(
        route="/predict/{model}",
        model=model,
        stem="0199d2c4f1a-5f3a9c1d-2b",
        version=4,
        headers={name.replace("_", "-").encode(): value for name, value in headers.items()},
        media_type="application/json",
        body=b"{}",
        samples=np.zeros((1, 1), np.float32),
        positions=range(1),
        values=np.zeros((1, 1), np.float32),
        error=None,
        batch_size=1,
        queue_s=0.0,
        forward_s=0.0,
        total_s=0.0,
    )


def show(observers: Observers, request: Served) -> None:
    observers.show(request, observers.interested(request.model, request.headers, request.stem))


def test_an_observer_sees_the_requests_of_its_model_that_it_wants_after_this_turn_of_the_loop() -> None:
    async def run() -> tuple[int, int]:
        observers, noting = Observers(), Noting()
        observers.add("line", noting)
        observers.add("line", noting)
        show(observers, served())
        show(observers, served(x_skip=b"yes"))
        show(observers, served("other"))
        at_once = len(noting.seen)
        await asyncio.sleep(0)
        return at_once, len(noting.seen)

    assert asyncio.run(run()) == (0, 1)


def test_a_removed_observer_sees_nothing_more() -> None:
    async def run() -> Observers:
        observers, one, other = Observers(), Noting(), Noting()
        observers.add("line", one)
        observers.add("line", other)
        observers.remove("line", one)
        show(observers, served())
        await asyncio.sleep(0)
        assert (one.seen, len(other.seen)) == ([], 1)
        observers.remove("line", other)
        return observers

    assert not asyncio.run(run())


def test_a_failing_observer_is_logged_and_the_others_still_see_the_request(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> int:
        observers, noting = Observers(), Noting()
        observers.add("line", Noting(ValueError("broken")))
        observers.add("line", noting)
        show(observers, served())
        await asyncio.sleep(0)
        return len(noting.seen)

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(run()) == 1
    assert "a prediction was not observed" in caplog.text


def test_of_a_repeated_header_the_last_one_holds_and_one_no_among_several() -> None:
    raw = [(b"x-capture", b"no"), (b"x-prediction-key", b"1"), (b"x-capture", b"yes"), (b"x-prediction-key", b"2")]
    headers = by_name([*raw, (b"traceparent", b"a"), (b"traceparent", b"b")])
    assert headers == {b"x-capture": b"no,yes", b"x-prediction-key": b"2", b"traceparent": b"a,b"}
    assert not may_be_kept(headers)
    assert may_be_kept({b"x-capture": b"nobody,yes"})


def test_the_headers_of_a_request_say_its_key_and_whether_it_may_be_kept() -> None:
    assert served(x_prediction_key=b"order 7").key == "order 7"
    assert served().key is None
    assert may_be_kept(served().headers)
    assert not may_be_kept(served(x_capture=b" No ").headers)
    assert served().id == "0199d2c4f1a-5f3a9c1d-2b-4"
