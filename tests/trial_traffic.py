"""The real application on a socket with two versions of two models, for tests of trials."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from sqlalchemy import select
from torch import Tensor, nn

from models.artifacts import pack
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.outputs import Value, describe_values, values
from models.signature import Number
from models.spec import Array, ModelSpec, Prediction
from service.app import create_app
from service.delivery.canary import Sticky, bound_of
from service.delivery.registry import Registry
from service.delivery.trials import Arm, Counts, Trial
from service.inference.engine import Loaded
from service.settings import Settings
from service.store.database import Store
from service.store.tables import nodes, trial_keys
from tests.fakes import LINE, InProcess, Line
from tests.open_trials import moved, opened
from tests.serving import no_recipes
from tests.sockets import listening
from tests.templates import migrated
from tests.trials import written_counts
from tests.waiting import until

TOO_MUCH = 1000.0  # the value from which on postprocessing fails
UNTOLD = -1000.0  # the value up to which describing fails


def checked(outputs: Array) -> Array:
    """Fail for values that are too large, unless they are infinite."""
    if ((outputs > TOO_MUCH) & np.isfinite(outputs) & (outputs < 1e30)).any():
        raise ArithmeticError("too much")
    return values(outputs)


def told(outputs: Array) -> Sequence[Prediction]:
    """Fail for values that are too small."""
    if (outputs <= UNTOLD).any():
        raise LookupError("no words")
    return describe_values(outputs)


class Scaled(nn.Module):
    """number * weight, (N,) -> (N, 1)."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float(weight)]))

    def forward(self, number: Tensor) -> Tensor:
        return number[:, None] * self.weight


def _in_units(sample: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"number": np.float32(sample["x"] * artifacts["unit"])}


SPECS: dict[str, ModelSpec] = {
    "line": replace(LINE, postprocess=checked, describe=told),
    "scaled": ModelSpec(
        summary="a number, in units of the version",
        network=Scaled,
        inputs={"x": Number()},
        encode=_in_units,
        postprocess=values,
        describe=describe_values,
        prediction=Value,
        example=[{"x": 1}],
    ),
}


def add_line(store: Store, slope: float, *, live: bool = False) -> int:
    """Register slope * x + 1."""
    return add(store, "line", Line(slope=slope), {}, live=live)


def add_scaled(store: Store, weight: float, unit: float, *, live: bool = False) -> int:
    """Register weight * unit * x."""
    return add(store, "scaled", Scaled(weight), {"unit": unit}, live=live)


def add(store: Store, model: str, network: nn.Module, artifacts: Mapping[str, Any], *, live: bool) -> int:
    """Register a network."""
    registry = Registry(store)
    with store.write() as connection:
        path = store.folder / "checkpoints" / model / f"{registry.count(connection, model)}.pt"
        sha256 = state_dict.save_weights(network.state_dict(), path)
        record = Record(model=model, sha256=sha256, artifacts=pack(artifacts))
        number = registry.add(connection, model, path, record, job=None, now=1.0)
        if live:
            registry.promote(connection, model, number, by="test", reason="", now=1.0)
    return number


@dataclass
class Traffic:
    """A service with open trials."""

    store: Store
    client: httpx.Client

    def open(self, trial: Trial) -> Trial:
        """Open a trial, and wait until it is followed."""
        opened(self.store, trial)
        self.followed(trial)
        return trial

    def move(self, trial: Trial, **values: Any) -> Trial:
        """Make a transition of a trial, and wait until it is followed."""
        changed = moved(self.store, trial, **values)
        self.followed(changed)
        return changed

    def followed(self, trial: Trial) -> None:
        """Wait until the row of the node says that it follows a trial, or its end."""
        stage = trial.stage if trial.is_open else None
        until(lambda: self._stages().get(trial.id) == stage)

    def ask(self, x: float, model: str = "line", path: str = "", **headers: str) -> httpx.Response:
        """Ask for the prediction of one sample."""
        body = {"inputs": [{"x": x}] if model == "scaled" else [[x]]}
        return self.client.post(path or f"/predict/{model}", json=body, headers=headers)

    def ask_v2(self, x: float, **headers: str) -> httpx.Response:
        """Ask as the Open Inference Protocol does."""
        tensor = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [x]}
        return self.client.post("/v2/models/line/infer", json={"inputs": [tensor]}, headers=headers)

    def counted(self, trial: Trial, arm: Arm, stage: int = 0) -> Counts:
        """The counts of an arm that are written."""
        rows = [row for row in written_counts(self.store, trial.id) if (row.arm, row.stage) == (arm, stage)]
        return sum((row.counts for row in rows), Counts())

    def written(self, trial: Trial, requests: int) -> None:
        """Wait until that many requests of both versions are written."""
        until(lambda: sum(self.counted(trial, arm).requests for arm in ("live", "candidate")) == requests)

    def keys(self, trial: Trial) -> Sequence[tuple[str, int]]:
        """The keys with errors: arm and hash."""
        with self.store.read() as connection:
            found = connection.execute(select(trial_keys).where(trial_keys.c.trial == trial.id))
            return [(row.arm, row.key) for row in found]

    def _stages(self) -> Mapping[str, int]:
        with self.store.read() as connection:
            found = connection.execute(select(nodes.c.trials)).scalars().all()
        return found[0] if found else {}


def is_chosen(trial: str, key: str, share: float) -> bool:
    """Whether the candidate of a trial, by its id, answers a key."""
    return Sticky(trial, "x").place({b"x": key.encode()}, "") < bound_of(share)


def loaded_of(model: str, version: int) -> list[Loaded]:
    """The loaded networks of a version that something still refers to."""
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, Loaded)]
    return [one for one in found if (one.model, one.version) == (model, version)]


@contextmanager
def served(folder: Path, specs: Mapping[str, ModelSpec] = SPECS, **settings: Any) -> Iterator[Traffic]:
    """Serve 2x + 1 as version 1 of line."""
    store = Store(migrated(folder))
    add_line(store, 2, live=True)
    add_scaled(store, 6, 1, live=True)
    told = Settings(store=folder, backend="eager", **settings)
    app = create_app(told, specs, folder / "none", no_recipes, partial(InProcess, specs))
    with listening(app) as ((host, port), _), httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
        yield Traffic(store, client)
    store.close()
