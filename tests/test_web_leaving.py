"""A server that begins to stop says so at once, while it still answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from service.web.exchange import LEAVING, Leaving
from tests.sockets import listening


def test_the_application_is_told_before_its_lifespan_ends() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Leaving]]:
        yield {LEAVING: lambda: seen.append("leaving")}
        seen.append("ended")

    with listening(Starlette(lifespan=lifespan)):
        assert seen == []
    assert seen == ["leaving", "ended"]
