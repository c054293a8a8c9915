"""GET /events over sockets: all changes, from now on or after one that was seen."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import changes
from service.app import create_app
from service.errors import StoreUnavailable
from service.settings import Settings
from service.store import feed
from service.store.database import Store
from service.store.feed import Changes, append, append_all
from service.store.feed_kinds import KINDS
from tests.fakes import LINE, InProcess, save_line
from tests.line_versions import state
from tests.serving import line_recipes
from tests.sockets import listening
from tests.templates import migrated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose version 1 is live; at most one event stream may be open."""
    folder = tmp_path_factory.mktemp("changes")
    save_line(folder)
    settings = Settings(store=migrated(folder / "store"), data=folder, max_event_streams=1)
    app = create_app(settings, {"line": LINE}, folder, line_recipes, partial(InProcess, {"line": LINE}))
    with listening(app) as (where, _):
        yield f"http://localhost:{where[1]}"


class Stream:
    """An open stream of events."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> tuple[int, str, dict[str, Any]]:
        fields = {}
        for line in self._lines:
            if not line and "data" in fields:
                break
            name, _, value = line.partition(": ")
            fields[name] = value
        return int(fields["id"]), fields["event"], json.loads(fields["data"])


def test_changes_come_in_order_and_resume_after_the_last_one_seen(url: str) -> None:
    with httpx.stream("GET", f"{url}/events", headers={"Last-Event-ID": "0"}, timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        first, second = stream.next(), stream.next()
        assert [first[1], second[1]] == ["version.registered", "version.promoted"]
        assert second[2] | {"at": 0} == {"model": "line", "version": 1, "by": "start", "at": 0} | {
            "reason": second[2]["reason"]
        }
        httpx.post(f"{url}/models/line/versions", content=state(5)).raise_for_status()
        third = stream.next()
        assert (third[1], third[2]["version"]) == ("version.registered", 2)
    with httpx.stream("GET", f"{url}/events", headers={"Last-Event-ID": str(second[0])}, timeout=30) as response:
        assert Stream(response).next() == third


def test_without_an_id_the_stream_begins_with_the_next_change_and_filters(url: str) -> None:
    with httpx.stream("GET", f"{url}/events?model=line&kind=version.promoted", timeout=30) as response:
        stream = Stream(response)
        httpx.post(f"{url}/models/line/promote", json={"version": 1}).raise_for_status()
        httpx.post(f"{url}/models/line/versions", content=state(6)).raise_for_status()
        newest = httpx.get(f"{url}/models/line/versions").json()["versions"][-1]["version"]
        httpx.post(f"{url}/models/line/promote", json={"version": newest}).raise_for_status()
        number, kind, data = stream.next()
    assert (kind, data["version"]) == ("version.promoted", newest)
    assert number > 2


def test_more_streams_than_allowed_are_429_and_a_bad_id_is_422(url: str) -> None:
    with httpx.stream("GET", f"{url}/events", timeout=30):
        assert httpx.get(f"{url}/events").status_code == 429
    assert httpx.get(f"{url}/events", headers={"Last-Event-ID": "x"}).status_code == 422
    assert httpx.get(f"{url}/events?kind=JOB").status_code == 422
    assert httpx.get(f"{url}/events?follow=maybe").status_code == 422


def test_a_stream_begins_with_its_position(url: str) -> None:
    newest = httpx.get(f"{url}/events?follow=false").text.split("\n\n")[-2]
    for headers, first in (({}, newest), ({"Last-Event-ID": "1"}, "id: 1")):
        with httpx.stream("GET", f"{url}/events?kind=drift", headers=headers, timeout=30) as response:
            lines = response.iter_lines()
            assert [next(lines), next(lines)] == [first, ""]


def test_the_changes_that_there_are_end_and_take_no_place_of_a_stream(url: str) -> None:
    with httpx.stream("GET", f"{url}/events", timeout=30):
        whole = httpx.get(f"{url}/events?follow=false")
        assert (whole.status_code, whole.headers["cache-control"]) == (200, "no-store")
        assert whole.text.startswith("id: 1\nevent: version.registered\n")
        none = httpx.get(f"{url}/events?follow=false&kind=trial.*&kind=dataset", headers={"Last-Event-ID": "1"})
        assert none.text == whole.text.split("\n\n")[-2] + "\n\n"  # the position


def test_a_long_feed_is_read_in_pages(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = httpx.get(f"{url}/events?follow=false").text
    assert whole.count("event: ") > 2
    monkeypatch.setattr(feed, "PAGE", 2)
    assert httpx.get(f"{url}/events?follow=false").text == whole


def test_a_database_that_is_away_in_the_middle_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = httpx.get(f"{url}/events?follow=false").text
    read, tries = Changes.new_events, []

    def away_at_first(self: Changes, after: int, limit: int) -> Any:
        tries.append(after)
        if len(tries) == 2:
            raise StoreUnavailable("away")
        return read(self, after, limit)

    monkeypatch.setattr(feed, "PAGE", 2)
    monkeypatch.setattr(changes, "AGAIN_S", 0.0)
    monkeypatch.setattr(Changes, "new_events", away_at_first)
    assert httpx.get(f"{url}/events?follow=false").text.replace(": still here\n\n", "") == whole
    assert tries[:3] == [0, 2, 2]


def test_a_service_that_stops_ends_the_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that was cut off instead would hold up the stop for the timeout of requests, with a traceback."""
    save_line(tmp_path)
    settings = Settings(store=tmp_path / "store", data=tmp_path)
    app = create_app(settings, {"line": LINE}, tmp_path, line_recipes, partial(InProcess, {"line": LINE}))
    with ExitStack() as stack:
        with listening(app) as (where, _):
            response = stack.enter_context(httpx.stream("GET", f"http://localhost:{where[1]}/events", timeout=30))
            lines = response.iter_lines()
            assert next(lines).startswith("id: ")
        assert [line for line in lines if line] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_reader_that_asks_for_removed_entries_gets_those_that_are_left(tmp_path: Path) -> None:
    save_line(tmp_path)
    store = Store(tmp_path / "store")
    store.migrate()
    with store.write() as connection:
        append_all(connection, "version.pruned", 1.0, [("line", {"version": one}) for one in range(5)])
        append(connection, "version.pruned", "line", time.time(), {"version": 5})
    removed = Changes(store).prune(2.0, 9)
    store.close()
    settings = Settings(store=tmp_path / "store", data=tmp_path)
    app = create_app(settings, {"line": LINE}, tmp_path, line_recipes, partial(InProcess, {"line": LINE}))
    with listening(app) as (where, _):
        told = {"Last-Event-ID": "2"}
        with httpx.stream("GET", f"http://localhost:{where[1]}/events", headers=told, timeout=30) as response:
            assert (removed, Stream(response).next()[0]) == (5, 6)


def test_the_documentation_names_each_kind(url: str) -> None:
    told = httpx.get(f"{url}/openapi.json").json()["paths"]["/events"]["get"]
    assert [kind for kind in KINDS if f"`{kind}`" not in told["description"]] == []
