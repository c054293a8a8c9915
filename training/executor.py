"""Execute orders: fit, evaluate, adopt, export, explain."""

import contextlib
import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from pydantic import ValidationError
from torch import nn

from models.attribution import NoGradient, attribute
from models.checkpoints import onnx_file, state_dict
from models.checkpoints.files import unwritable
from models.checkpoints.onnx_export import export
from models.checkpoints.record import Record
from models.checkpoints.storage import keep
from models.device import resolve
from models.errors import CheckpointError
from models.messages import Order, packed, unpacked
from models.spec import ModelSpec
from training.fitting.resume import ResumePoints
from training.recipe import Dataset, Hyperparameters, Progress, Recipe, TrainingError, recipes
from training.report.live_plot import EVERY_S, LivePlot
from training.report.tensorboard import EventFile
from training.run import held_out_figures, run

_EXPLAINED = 4  # networks


class StoreError(Exception):
    """What was to be kept cannot be written."""


class Child:
    """Does orders. What it loaded for one it has at hand for the next."""

    def __init__(self, out: TextIO, specs: Mapping[str, ModelSpec], plot_every_s: float = EVERY_S) -> None:
        self._out = out
        self._specs = specs
        self._plot_every_s = plot_every_s
        self._datasets: dict[str, Dataset] = {}
        self._explained: dict[tuple[str, str], nn.Module] = {}

    def do(self, order: Order) -> None:
        """One order; its result, or why there is none, is the last line that it tells."""
        try:
            self._tell(kind="result", **self._done(order))
        except ValidationError as err:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in err.errors())
            self._tell(kind="error", title="Invalid hyperparameters", detail=faults)
        except TrainingError as err:
            self._tell(kind="error", title="Training failed", detail=str(err))
        except CheckpointError as err:
            self._tell(kind="error", title="Broken checkpoint", detail=str(err))
        except StoreError as err:
            self._tell(kind="error", title="Store unavailable", detail=str(err))
        except NoGradient as err:
            self._tell(kind="error", title="No gradient", detail=str(err))
        except Exception as err:  # noqa: BLE001 - the job's edge: a recipe may raise anything, and would raise it again
            traceback.print_exc()
            detail = f"the recipe raised {type(err).__name__}; the worker's log holds the trace"
            self._tell(kind="error", title="Recipe failed", detail=detail)

    def _done(self, order: Order) -> dict[str, Any]:
        if order["op"] == "adopt":
            return self._adopt(order)
        if order["op"] == "export":
            return self._export(order)
        if order["op"] == "explain":
            return self._explain(order)
        if order["model"] not in recipes():
            raise TrainingError(f"this worker has no recipe for {order['model']}: add training/{order['model']}.py")
        recipe = recipes()[order["model"]]
        config = recipe.config.model_validate(order["config"])
        return self._fit(order, recipe, config) if order["op"] == "fit" else self._evaluate(order, recipe, config)

    def _fit(self, order: Order, recipe: Recipe[Any], config: Hyperparameters) -> dict[str, Any]:
        store = Path(order["store"])
        scratch = store / "jobs" / order["job"]
        curves = LivePlot(order, recipe, scratch / "plot.png", self._plot_every_s)

        event_file = EventFile(scratch / "tensorboard") if order["tensorboard"] else None

        def report(progress: Progress) -> None:
            self._tell(kind="progress", **asdict(progress))
            if event_file:
                event_file.add(progress)
            curves.add(progress)

        with contextlib.closing(event_file) if event_file else contextlib.nullcontext(), curves.whole_if_it_fails():
            outcome = run(
                order["model"],
                recipe,
                config,
                data=Path(order["data"]),
                folder=store / "checkpoints" / order["model"],
                report=ResumePoints(scratch, order["attempt"], report),
                command=f"job {order['job']}",
                device=resolve(order["device"]),
            )
            if event_file:
                event_file.finish(config, outcome.record.metrics)
        curves.draw(outcome.network, outcome.dataset)
        self._datasets[self._key(order)] = outcome.dataset
        return {
            "path": outcome.path.relative_to(store).as_posix(),
            "record": asdict(outcome.record),
            "metric": recipe.metric,
            "higher_is_better": recipe.higher_is_better,
        }

    def _evaluate(self, order: Order, recipe: Recipe[Any], config: Hyperparameters) -> dict[str, Any]:
        """A checkpoint's figures on the held-out splits of the config's data set."""
        key = self._key(order)
        if key not in self._datasets:
            self._datasets[key] = recipe.load(config, Path(order["data"]))
        dataset = self._datasets[key]
        record = Record(**order["record"])
        network, _ = state_dict.load(order["model"], self._specs[order["model"]], Path(order["path"]), record)
        return {"metrics": held_out_figures(recipe, network, dataset), "dataset": dataset.name}

    def _adopt(self, order: Order) -> dict[str, Any]:
        """A state_dict from elsewhere, checked by building the network from it, into the store as torch.save writes."""
        name, arguments, store = order["model"], order["arguments"], Path(order["store"])
        network = state_dict.build(self._specs[name], arguments)
        state_dict.adopt(network, state_dict.read_state(Path(order["path"]).read_bytes(), "the upload"))
        content = state_dict.to_bytes(network.state_dict())
        try:
            path = keep(content, store, name)
        except OSError as err:
            raise StoreError(unwritable(err)) from err
        sha256 = hashlib.sha256(content).hexdigest()
        record = Record(model=name, sha256=sha256, arguments=arguments, torch=torch.__version__, command="uploaded")
        return {"path": path.relative_to(store).as_posix(), "record": asdict(record)}

    def _export(self, order: Order) -> dict[str, Any]:
        """A checkpoint's export, to the file where it is looked for."""
        spec = self._specs[order["model"]]
        network, _ = state_dict.load(order["model"], spec, Path(order["path"]), Record(**order["record"]))
        result = export(spec, network)
        with contextlib.suppress(OSError):  # the reader finds no file, and says so
            onnx_file.write(result, Path(order["to"]))
        return {}

    def _explain(self, order: Order) -> dict[str, Any]:
        """Outputs and attributions of samples; the networks asked for last are at hand."""
        spec, record = self._specs[order["model"]], Record(**order["record"])
        key = (order["model"], record.sha256)
        if key not in self._explained:
            network, _ = state_dict.load(order["model"], spec, Path(order["path"]), record)
            self._explained = {**dict(list(self._explained.items())[1 - _EXPLAINED :]), key: network}
        found = attribute(spec, self._explained[key], unpacked(order["samples"]), order["method"])
        return dict(zip(("outputs", "attributions"), map(packed, found), strict=True))

    def _key(self, order: Order) -> str:
        return json.dumps([order["model"], order["config"]], sort_keys=True)

    def _tell(self, **message: Any) -> None:
        self._out.write(json.dumps(message, allow_nan=False) + "\n")
        self._out.flush()
