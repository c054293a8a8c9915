"""The real application, asked whatever its own description allows and forbids: it answers as described.

`make test` asks the same questions each time, `make fuzz` asks others for as long as it is told to. Jobs that are
ordered here stay queued, and no process is started.
"""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.python import asgi
from schemathesis.schemas import BaseSchema

from models import catalog, mnist
from service.app import create_app
from service.config import Key, Settings
from service.jobs import Jobs
from service.store import Store
from tests.fakes import LINE, InProcess, save_line
from tests.serving import line_recipes

SPECS = {"line": LINE, "mnist": mnist.SPEC}
# What no schema can say: a picture without ink, a state_dict that does not fit, the hyperparameters of each recipe.
BY_CONTENT = ["POST /predict/mnist", "POST /models/{model}/versions", "POST /train"]


FOLDER = TemporaryDirectory()
HERE = Path(FOLDER.name)
there: dict[str, str | int] = {"version": 1}  # what a path may name that exists; a job joins it


def described(name: str, keys: tuple[Key, ...]) -> BaseSchema:
    """The description of an application, as it gives it out, with every check that there is but for one exception."""
    app = create_app(
        Settings(store=HERE / name, backend="eager", api_keys=keys), SPECS, HERE, line_recipes, partial(InProcess, SPECS)
    )
    accepts = [{"include-name": name, "checks": {"positive_data_acceptance": {"enabled": False}}} for name in BY_CONTENT]
    options: dict[str, Any] = {"operations": accepts, "base-url": "http://testserver", "request-timeout": 20}
    if keys:
        options["headers"] = {"Authorization": f"Bearer {keys[0].secret}"}
    schema = schemathesis.openapi.from_dict(app.openapi(), config=schemathesis.Config.from_dict(options))
    schema.app = app
    schema.hook(map_path_parameters)
    return schema


def map_path_parameters(_: Any, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the jobs and versions that are asked for exist."""
    for name in there.keys() & (parameters or {}).keys():
        if len(str(parameters[name])) % 2:
            parameters[name] = there[name]
    return parameters


@pytest.fixture(scope="module", autouse=True)
def shipped() -> Iterator[None]:
    """What the applications find when they start; their end."""
    save_line(HERE)
    for path in catalog.PRETRAINED.glob("mnist.*"):
        shutil.copy(path, HERE)
    with FOLDER:
        for name in ("open", "locked"):
            finished_job(HERE / name)
        yield
        asgi.shutdown_lifespans()


def finished_job(folder: Path) -> None:
    """A job that is over, with a plot: its events end, so that they can be asked for."""
    store = Store(folder)
    store.migrate()
    jobs = Jobs(store)
    job = jobs.enqueue("line", {"epochs": 1}, "never", now=time.time())
    plot = store.folder / "jobs" / job.id / "plot.png"
    plot.parent.mkdir(parents=True)
    shutil.copy(catalog.PRETRAINED / "seven.png", plot)
    jobs.cancel(job.id, now=time.time())
    store.close()
    there["job_id"] = job.id


@schemathesis.pytest.parametrize(
    open=described("open", ()),
    locked=described("locked", (Key(scope="admin", secret="abc"),)),
)
@settings(suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate()
