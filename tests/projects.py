"""Project folders in this process: offer their models, train them and serve them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.testclient import TestClient

from models.project import Project, use
from tests.serving import no_recipes, serving
from training import recipe
from training.run import Outcome, run


@contextmanager
def nothing_left() -> Iterator[None]:
    """Remove a project's folder from the packages and the environment, and its modules from the process, at the end."""
    environ, loaded = dict(os.environ), set(sys.modules)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)
        for name in set(sys.modules) - loaded:
            if name.startswith(("models.", "training.")):
                del sys.modules[name]
        recipe.discovered.cache_clear()
        for package in ("models", "training"):
            Project().mount(package)


@contextmanager
def offered(folder: Path) -> Iterator[None]:
    """Offer the models of this project folder only."""
    with nothing_left():
        os.environ["TORCHLOOP_BUILTIN"] = "off"
        use(folder)
        recipe.discovered.cache_clear()
        yield


def train(name: str, folder: Path, **values: Any) -> Outcome:
    """Fit a model that is offered with these hyperparameters. The checkpoint is `folder`/NAME.pt."""
    found = recipe.recipes()[name]
    return run(
        name,
        found,
        found.config(**values),
        data=folder,
        folder=folder,
        file=f"{name}.pt",
        report=lambda _: None,
        command="a test",
    )


@contextmanager
def trained_and_served(folder: Path, name: str, **values: Any) -> Iterator[tuple[Outcome, TestClient]]:
    """Train a model of a project folder, and serve it through the application with that folder."""
    with offered(folder), TemporaryDirectory() as pretrained:
        outcome = train(name, Path(pretrained), **values)
        with serving(Path(pretrained), None, no_recipes, project=folder, builtin="off") as client:
            yield outcome, client
