import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.fakes import LINE, InProcess, save_line
from tests.problems import is_problem
from tests.serving import BASE_URL, no_recipes


def application(folder: Path) -> FastAPI:
    """The application with the fake model, not started."""
    save_line(folder)
    specs = {"line": LINE}
    return create_app(Settings(store=folder / "store"), specs, folder, no_recipes, partial(InProcess, specs))


PATHS = ["/predict/line", "/train", "/v2/models/line/infer", "/health/live", "/models", "/", "/nowhere"]


@pytest.mark.many
@pytest.mark.parametrize("path", PATHS)
def test_requests_outside_of_the_lifespan_are_told_how_to_enter_it(tmp_path: Path, path: str) -> None:
    app = application(tmp_path)

    async def ask(base_url: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url) as client:
            return await client.post(path, json={"inputs": [[1]]})

    for base_url in (BASE_URL, "http://test"):
        answer = asyncio.run(ask(base_url))
        assert answer.status_code == 503
        assert "with TestClient(app)" in answer.text
        assert "app.router.lifespan_context(app)" in answer.text


def test_requests_within_the_lifespan_are_answered_and_later_ones_told_that_it_has_ended(tmp_path: Path) -> None:
    app = application(tmp_path)

    async def answers() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as client:
            async with app.router.lifespan_context(app):
                within = await client.post("/predict/line", json={"inputs": [[1]]})
            return [within, await client.post("/predict/line", json={"inputs": [[1]]})]

    within, after = asyncio.run(answers())
    assert within.json()["predictions"] == [{"value": 3}]
    assert is_problem(after, 503, "has ended")


def test_another_host_name_is_told_the_base_url_for_tests(tmp_path: Path) -> None:
    app = application(tmp_path)
    with TestClient(app, "http://test") as client:
        refused = client.get("/models")
    assert refused.status_code == 421
    assert 'base_url="http://localhost"' in refused.json()["detail"]
