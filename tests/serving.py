"""The real application, in process, around the fake model or the real ones."""

import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from models import catalog
from models.spec import Array, ModelSpec
from service.app import create_app
from service.execution.recipes import ReadRecipes, RecipeSchema
from service.settings import Settings
from tests.fakes import InProcess
from tests.templates import migrated

BASE_URL = "http://localhost"  # without keys the service answers to no other name

LINE_RECIPE = RecipeSchema(
    hyperparameters={
        "type": "object",
        "additionalProperties": False,
        "properties": {"epochs": {"type": "integer", "minimum": 1, "default": 1, "description": "passes"}},
    },
    metric="mse",
    higher_is_better=False,
)


async def line_recipes() -> Mapping[str, RecipeSchema]:
    """Return the output of `python -m training --schemas` for the fake model, without a process."""
    return {"line": LINE_RECIPE}


async def no_recipes() -> Mapping[str, RecipeSchema]:
    """Return no recipes, so that uploads are not evaluated."""
    return {}


@contextmanager
def serving(
    pretrained: Path = catalog.PRETRAINED,
    specs: Mapping[str, ModelSpec] | None = None,
    recipes: ReadRecipes = line_recipes,
    child: type[InProcess] = InProcess,
    now: Callable[[], float] = time.time,
    **settings: Any,
) -> Iterator[TestClient]:
    """A client of the started application; its store is a temporary one unless given."""
    with TemporaryDirectory() as folder:
        settings = {"store": Path(folder), **settings}
        if not settings.get("database_url"):
            migrated(settings["store"])
        app = create_app(
            Settings(**settings),
            specs,
            pretrained,
            recipes,
            partial(child, specs),
            now=now,
        )
        with TestClient(app, BASE_URL, raise_server_exceptions=False) as client:
            yield client


def over(app: TestClient) -> httpx.MockTransport:
    """A transport into the application; for both kinds of Client."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = app.request(request.method, str(request.url), content=request.read(), headers=dict(request.headers))
        headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        return httpx.Response(answer.status_code, headers=headers, content=answer.content)

    return httpx.MockTransport(handle)


def npy(array: Any) -> bytes:
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(array: Array, kind: str = "PNG") -> bytes:
    """The bytes of a picture."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()
