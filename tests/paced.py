"""A model whose fit waits between its steps until a file exists: a job that runs for as long as a test needs.

It is the regressor with another recipe. A job that is slow because it computes would take the processor from the other
tests, and would end too soon or too late on another machine.
"""

from pathlib import Path
from typing import Any
from zlib import crc32

from service.store.database import Store

MODEL = "paced"
_SPEC = "from models.regressor import SPEC as SPEC\n"
_RECIPE = '''
import time
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from training import regressor

PACE_S = 0.1


class Config(regressor.Config):
    gate: int = Field(0, ge=0, lt=2**32, description="number of the file that ends the waiting")


class Paced:
    """A resumable Report that takes its time."""

    def __init__(self, report, gate):
        self.report, self.gate = report, Path(__file__).parents[1] / f"gate-{gate}"
        self.saved, self.save, self.watch, self.group = report.saved, report.save, report.watch, report.group

    def __call__(self, progress):
        self.report(progress)
        if not self.gate.exists():
            time.sleep(PACE_S)


def fit(network, dataset, config, report):
    regressor.fit_network(network, dataset, config, Paced(report, config.gate))


RECIPE = replace(regressor.RECIPE, config=Config, fit=fit)
'''


def write_project(folder: Path) -> Path:
    """Write the project folder of the model. Returns it."""
    for package, text in (("models", _SPEC), ("training", _RECIPE)):
        (folder / package).mkdir()
        (folder / package / f"{MODEL}.py").write_text(text)
    return folder


def config(store: Store) -> dict[str, Any]:
    """Hyperparameters of a job that takes half a minute, or is over at once after `open_gate`."""
    return {"epochs": 300, "gate": _number(store)}


def open_gate(store: Store, project: Path) -> None:
    """Let the jobs of this store run to their end."""
    (project / f"gate-{_number(store)}").touch()


def _number(store: Store) -> int:
    return crc32(bytes(store.folder.resolve()))
