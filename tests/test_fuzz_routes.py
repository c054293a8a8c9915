"""The real application, asked whatever its own description allows and forbids: it answers as described.

`make test` asks the same questions each time, `make fuzz` asks others for as long as it is told to. Jobs that are
ordered here stay queued, and no process is started.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from schemathesis.schemas import BaseSchema
from starlette.types import Receive, Scope, Send

from models import catalog, mnist
from models.checkpoints.record import Record
from service.app import create_app
from service.delivery.registry import Registry
from service.delivery.trials import Opening, Trials
from service.jobs.queue import Jobs
from service.settings import Key, Settings
from service.store.database import Store
from tests.fakes import LINE, InProcess, save_line
from tests.hostile import INSIDE
from tests.serving import line_recipes, npy

pytestmark = pytest.mark.slow

SPECS = {"line": LINE, "mnist": mnist.SPEC}
# What no schema can say: a number whose double is infinite, a picture without ink, a state_dict that does not fit, the
# hyperparameters of each recipe, whether it learns files, shares that rise. What is valid under the schema may be
# refused there.
BY_CONTENT = (
    r"^POST (/(predict|explain|preview)/.*|/models/\{model\}/((datasets/\{name\}/)?(versions|uploads)|trial)|/train)$"
    r"|^(GET|DELETE) /models/\{model\}/captures$"  # the cursor of another order, two of id, key and before
    r"|^PUT /models/\{model\}/retrain$"  # a duration of 0, a trigger without a dataset
)
PICTURES = r"^POST (/(predict|explain)/mnist|/preview/.*)$"  # a minute of variants of 784 pixels, and unwritable types
PREDICT = r"^POST /(predict|explain)/"  # of several samples a bad one fails alone, and the answer is 200


schemathesis.openapi.media_type(
    "application/x-npy",
    arrays(np.float32, st.tuples(st.integers(1, 3), st.just(1)), elements=st.floats(-9, 9, width=32)).map(npy),
)
schemathesis.openapi.media_type("application/x-tar", st.binary(max_size=1024))
FOLDER = TemporaryDirectory()
HERE = Path(FOLDER.name)
there: dict[str, str | int] = {"version": 1}  # what a path may name that exists; a job joins it


class Fresh:
    """Application that is created again at each start: schemathesis starts and stops it for each operation."""

    def __init__(self, name: str, keys: tuple[Key, ...]) -> None:
        self._settings = Settings(store=HERE / name, backend="eager", api_keys=keys)
        self.app = self._made()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.app = self._made()
        await self.app(scope, receive, send)

    def _made(self) -> FastAPI:
        return create_app(self._settings, SPECS, HERE, line_recipes, partial(InProcess, SPECS))


def described(name: str, *keys: Key) -> BaseSchema:
    """The description of an application, as it gives it out, with every check that there is but for these."""
    fresh = Fresh(name, keys)
    exceptions: list[dict[str, Any]] = [
        {"include-name-regex": BY_CONTENT, "checks": {"positive_data_acceptance": {"enabled": False}}},
        {"include-name-regex": PREDICT, "checks": {"negative_data_rejection": {"enabled": False}}},
        {"include-name-regex": PICTURES, "phases": {"coverage": {"enabled": False}}},
    ]
    taken_for_a_refusal = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]  # as by default, 412, 413
    rejected = [*map(str, taken_for_a_refusal), "5xx"]
    accepted = ["2xx", "3xx", "401", "403", "404", "409", "412", "429", "5xx"]  # as by default, and 412 (If-Match)
    checks = {
        "negative_data_rejection": {"expected-statuses": rejected},
        "positive_data_acceptance": {"expected-statuses": accepted},
    }
    options: dict[str, Any] = {
        "checks": checks,
        "operations": exceptions,
        "base-url": "http://127.0.0.1",
        "request-timeout": 20,
    }
    if keys:
        # A key is asked for before it is looked whether there is such a method.
        exceptions.append({"include-path-regex": "^/health/", "checks": {"unsupported_method": {"enabled": False}}})
        options["auth"] = {"openapi": {"key": {"bearer": keys[0].secret}}}
    description = fresh.app.openapi()
    del description["paths"]["/events"]  # an answer without end
    for path in ("/predict/mnist", "/explain/mnist"):
        body = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        del body["properties"]["inputs"]["maxItems"]  # one more than that is a body of 13 million numbers
    schema = schemathesis.openapi.from_dict(description, config=schemathesis.Config.from_dict(options))
    schema.app = fresh
    schema.hook(map_path_parameters)
    schema.hook(filter_body)
    return schema


def map_path_parameters(_: Any, parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Half of the valid jobs and versions that are asked for exist; a value that is none stays what it is."""
    parameters = parameters or {}
    for name in there.keys() & parameters.keys():
        value = parameters[name]
        is_valid = type(value) is type(there[name]) and not (isinstance(value, int) and value < 1)
        if is_valid and len(str(value)) % 2:
            parameters[name] = there[name]
    return parameters


WHOLE = ("version", "max_examples", "max_bytes")


def filter_body(_: Any, body: Any) -> bool:
    """Leave out a whole number written as 3.0: an integer to JSON schema, and refused."""
    numbers = [body.get(name) for name in WHOLE] if isinstance(body, dict) else []
    return not any(isinstance(number, float) and number.is_integer() for number in numbers)


@pytest.fixture(scope="session")
def shipped() -> Iterator[None]:
    """What the applications find when they start; their end."""
    save_line(HERE)
    for path in catalog.PRETRAINED.glob("mnist.*"):
        shutil.copy(path, HERE)
    with FOLDER:
        for name in ("open", "locked"):
            finished_job(HERE / name)
            finished_trial(HERE / name)
        yield


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


def finished_trial(folder: Path) -> None:
    """A trial that is over, of a model that is not served any more."""
    store = Store(folder)
    registry = Registry(store)
    with store.write() as connection:
        for _ in range(2):
            record = Record(model="gone", sha256="0" * 64)
            registry.add(connection, "gone", store.folder / "gone.pt", record, job=None, now=1)
        registry.promote(connection, "gone", 1, by="test", reason="", now=1)
    trials = Trials(store)
    trial = trials.begin(Opening(model="gone", version=2), by="test", now=2)
    trials.abort(trial, by="test", reason="over", now=3)
    store.close()
    there["trial_id"] = trial.id


@schemathesis.pytest.parametrize(
    open=described("open"),
    locked=described("locked", Key(scope="admin", secret="abc")),  # noqa: S106
)
@settings(suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_described(shipped: None, case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate()
    if response.status_code < 400:
        return
    text = re.sub(r"\b(models|training)/[\w-]+\.py\b", "", response.text)  # messages name the files of a model
    for sent in case.path_parameters.values():  # a message may name what the client sent
        text = text.replace(json.dumps(unquote(str(sent)))[1:-1], "")
    assert not INSIDE.search(text)
