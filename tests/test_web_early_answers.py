"""A client that is answered before its body was read sees the answer, whatever client it is and however it sends."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import Response

from service.app import create_app
from service.settings import Settings
from service.web.exchange import Headers, Refusal
from tests.early_answers import CLIENTS, EVERY, MAX_BODY_BYTES, MB, PNG, PROGRAMS, Case, named
from tests.fakes import InProcess
from tests.serving import no_recipes
from tests.sockets import Address, echoing, listening
from tests.templates import migrated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Address]]:
    """Addresses of the application without keys, with keys, and of a server whose queue is always full."""

    def app(name: str, **settings: Any) -> FastAPI:
        store = tmp_path_factory.mktemp(name)
        start = partial(InProcess, None)
        limits = {"max_body_bytes": MAX_BODY_BYTES, "max_checkpoint_bytes": MAX_BODY_BYTES}
        given = Settings(**{"store": migrated(store), "backend": "eager", **limits, **settings})
        return create_app(given, read=no_recipes, start_child=start)

    with (
        listening(app("open")) as (one, _),
        listening(app("locked", api_keys="predict:reads,admin:all")) as (two, _),
        echoing(refusing) as (three, _),
    ):
        yield {"open": one, "locked": two, "full": three}


def refusing(method: bytes, target: bytes, _: Headers) -> Refusal | None:
    return Refusal(Response("too many", 429), lambda: True) if (method, target) == (b"POST", b"/asked") else None


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("door", "case"), EVERY, ids=named)
def test_the_early_answer_of_every_route_is_seen(
    doors: Mapping[str, Address], door: str, case: Case, client: str
) -> None:
    assert CLIENTS[client](doors[door], case, bytes(10 * MB)) == case.status


@pytest.mark.parametrize("client", PROGRAMS)
@pytest.mark.parametrize(("door", "case"), [EVERY[0], EVERY[2], EVERY[9], *EVERY[-3:]], ids=named)
def test_the_early_answer_is_seen_by_other_programs(
    doors: Mapping[str, Address], door: str, case: Case, client: str
) -> None:
    assert PROGRAMS[client](doors[door], case, bytes(10 * MB)) == case.status


@pytest.mark.parametrize("size", [2 * MB, 3 * MB, 17 * MB, 24 * MB, 40 * MB])
@pytest.mark.parametrize("client", [*CLIENTS, *PROGRAMS])
@pytest.mark.parametrize("path", ["/predict/mnist", "/v2/models/mnist/infer"])
def test_a_body_of_any_size_that_is_too_large_is_answered_with_413(
    doors: Mapping[str, Address], client: str, size: int, path: str
) -> None:
    case = Case(413, "POST", path, PNG)
    send = CLIENTS.get(client) or PROGRAMS[client]
    assert send(doors["open"], case, bytes(size)) == 413
