"""A subprocess without the process, servers to talk to, and the model of `tests.line`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from benchmarks.service_process import running_service
from models import catalog
from models.messages import Message, Order, decode_message, decode_order, encode_message, encode_order
from models.spec import ModelSpec
from service.execution.process import Child
from tests.line import LINE, Line, save_line
from tests.templates import migrated
from training import executor
from training.report.live_plot import EVERY_S

__all__ = ["LINE", "ROOT", "InProcess", "Line", "running_server", "save_line", "shipped_specs", "started_before"]

ROOT = Path(__file__).parents[1]
_MADE = TemporaryDirectory()


def shipped_specs() -> dict[str, ModelSpec]:
    """The models that an empty store serves: a model that was added need not have a checkpoint."""
    return {name: spec for name, spec in catalog.specs().items() if (catalog.PRETRAINED / f"{name}.pt").exists()}


class InProcess(Child):
    """Torch subprocess without the process: the same executor and codec, at once."""

    def __init__(self, specs: Mapping[str, ModelSpec] | None, plot_every_s: float = EVERY_S) -> None:
        self.exit = None
        self._told: list[Message] = []
        self._executor = executor.Executor(
            self._tell, catalog.specs() if specs is None else specs, plot_every_s=plot_every_s
        )

    def send(self, order: Order[Any]) -> None:
        self._executor.do(decode_order(encode_order(order)))

    def messages(self, timeout_s: float) -> list[Message]:  # noqa: ARG002
        told, self._told = self._told, []
        return told

    def stop(self) -> None:
        pass

    def _tell(self, message: Message) -> None:
        self._told.append(decode_message(encode_message(message)))


_READ_RECIPES = """
import asyncio, os, sys
from pathlib import Path
from models import project
from service.execution.recipes import read_recipes
project.of(os.environ).enter()
asyncio.run(read_recipes(Path(sys.argv[1])))
"""


@cache
def _made(project: str) -> Path:
    """Return a folder with the schemas of the recipes. A service makes them at its first start, by a process that
    imports torch: most of the work of that start.
    """
    folder = Path(mkdtemp(dir=_MADE.name))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    environ |= {"TORCHLOOP_PROJECT": project} if project else {}
    subprocess.run([sys.executable, "-c", _READ_RECIPES, folder], cwd=ROOT, env=environ, check=True)
    return folder


def started_before(store: Path, project: str = "") -> Path:
    """Copy to a store folder the schemas that the first start of a service makes. Returns the folder.

    `project` is the project folder of the service, if it has one and other tests use the same.
    """
    return Path(shutil.copytree(_made(project), store, dirs_exist_ok=True))


@contextmanager
def running_server(
    settings: Mapping[str, str], cwd: Path = ROOT, command: Sequence[str | Path] = (sys.executable, "-m", "service")
) -> Iterator[str]:
    """Start `python -m service`, or another command, as running_service does, and yield its URL.

    Its store is one of a service that was started before. The service has a session of its own: in the session of the
    tests, which keep all processors busy, its trainings with their low priority would hardly get on.
    """
    with TemporaryDirectory() as folder:
        settings = {"TORCHLOOP_STORE": folder, **settings}
        store = started_before(Path(settings["TORCHLOOP_STORE"]))
        if "TORCHLOOP_DATABASE_URL" not in settings:
            migrated(store)
        with running_service(settings, cwd=cwd, command=command, own_session=True) as (url, _):
            yield url
