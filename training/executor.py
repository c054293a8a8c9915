"""Executor of orders: fit, evaluate, adopt, export, explain."""

import contextlib
import json
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models import messages
from models.attribution import NoGradient, attribute
from models.checkpoints import artifact_files, onnx_file, state_dict
from models.checkpoints.files import unwritable
from models.checkpoints.onnx_export import export
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.device import resolve
from models.errors import CheckpointError, ObjectsUnavailable
from models.groups import Listening
from models.messages import FailureKind
from models.spec import ModelSpec
from training.adoption import adopt
from training.datasets.errors import DatasetError
from training.datasets.memory import limited
from training.datasets.orders import ingested
from training.datasets.splits import present
from training.datasets.version import read_index
from training.drift import measured_drift
from training.fitting.group import Group, PeerLost, hosted, joined
from training.fitting.resume import ResumePoints
from training.forms import judged
from training.outcomes import Judge, judge_of, paired, paired_apart
from training.recipe import Dataset, Hyperparameters, Outcomes, Progress, Recipe, TrainingError, recipe_faults, recipes
from training.report.live_plot import EVERY_S, LivePlot
from training.report.tensorboard import EventFile
from training.rows import prepared
from training.run import held_out, loaded, run, trained

_EXPLAINED = 4  # networks
Tell = Callable[[messages.Message], None]


class StoreError(Exception):
    """The store folder cannot be written."""


class BadHyperparameters(Exception):
    """A config that the recipe does not accept."""


class Executor:
    """Executes orders and passes progress and results to `tell`. Keeps loaded datasets and networks between orders."""

    def __init__(
        self,
        tell: Tell,
        specs: Mapping[str, ModelSpec],
        known: Callable[[], Mapping[str, Recipe[Any]]] = recipes,
        plot_every_s: float = EVERY_S,
    ) -> None:
        self._plot_every_s = plot_every_s
        self._tell = tell
        self._specs = specs
        self._recipes = known
        self._datasets: dict[str, Dataset] = {}
        self._evaluated: dict[str, Dataset] = {}  # as the network takes it, by the digest of the weights: the last
        self._outcomes: dict[tuple[str, str], Outcomes | None] = {}  # of the last fit, by dataset and weights
        self._explained: dict[tuple[str, str], nn.Module] = {}

    def do(self, order: messages.AnyOrder) -> None:
        """Execute one order. The last message is its result or the reason of its failure. Raises PeerLost."""
        try:
            self._tell(self._result(order))
        except PeerLost:
            raise
        except BadHyperparameters as err:
            self._fail(FailureKind.HYPERPARAMETERS, "Invalid hyperparameters", str(err))
        except TrainingError as err:
            self._fail(FailureKind.TRAINING, "Training failed", str(err))
        except CheckpointError as err:
            self._fail(FailureKind.CHECKPOINT, "Broken checkpoint", str(err))
        except StoreError as err:
            self._fail(FailureKind.STORE, "Store unavailable", str(err))
        except ObjectsUnavailable as err:
            self._fail(FailureKind.OBJECTS, "Store unavailable", str(err))
        except NoGradient as err:
            self._fail(FailureKind.GRADIENT, "No gradient", str(err))
        except DatasetError as err:
            self._fail(FailureKind.DATASET, err.title, err.detail, err.summary)
        except Exception as err:  # noqa: BLE001 - the job's edge: user code may raise anything, and would raise it again
            traceback.print_exc()
            title, doing, log = _in_words(order)
            self._fail(FailureKind.UNEXPECTED, title, f"{doing} raised {type(err).__name__}; {log} holds the trace")

    def _result(self, order: messages.AnyOrder) -> messages.Result:
        match order:
            case messages.Fit() | messages.Assist():
                return self._train(order)
            case messages.Evaluate():
                return self._evaluate(order)
            case messages.Adopt():
                return self._adopt(order)
            case messages.Export():
                return self._export(order)
            case messages.Explain():
                return self._explain(order)
            case messages.Ingest():
                return self._ingest(order)

    def _fail(
        self,
        kind: FailureKind,
        title: str,
        detail: str,
        summary: messages.DatasetSummary | None = None,
    ) -> None:
        # detail may have text from a file; lone surrogates are not valid JSON for the reader
        detail = detail.encode("utf-8", "backslashreplace").decode()
        self._tell(messages.Failed(kind=kind, title=title, detail=detail, summary=summary))

    def _recipe(self, model: str) -> Recipe[Any]:
        recipe = self._recipes().get(model)
        if recipe is None:
            raise TrainingError(
                recipe_faults().get(model) or f"this worker has no recipe for {model}: add training/{model}.py"
            )
        return recipe

    def _configured(self, order: messages.Fit | messages.Evaluate) -> tuple[Recipe[Any], Hyperparameters]:
        recipe = self._recipe(order.model)
        try:
            return recipe, recipe.config.model_validate(order.config)
        except ValidationError as err:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in err.errors())
            raise BadHyperparameters("; ".join(faults)) from err

    def _train(self, order: messages.Fit | messages.Assist) -> messages.Fitted | messages.Assisted:
        if isinstance(order, messages.Assist):
            return self._assist(order)
        with self._hosted(order) as group:
            return self._fit(order, group)

    def _fit(self, order: messages.Fit, group: Group | None) -> messages.Fitted:
        recipe, config = self._configured(order)
        storage = Storage.at(order.store)
        curves = LivePlot(order, recipe, storage.plot(order.job), self._plot_every_s, storage.hasty)
        event_file = EventFile(storage.tensorboard(order.job)) if order.tensorboard else None

        def report(progress: Progress) -> None:
            self._tell(messages.Progressed(point=progress))
            if event_file:
                event_file.add(progress)
            curves.add(progress)

        with contextlib.closing(event_file) if event_file else contextlib.nullcontext(), curves.whole_if_it_fails():
            outcome = run(
                order.model,
                recipe,
                config,
                data=order.data,
                folder=storage.checkpoints(order.model),
                report=ResumePoints(partial(storage.resume_point, order.job), order.attempt, report, storage=storage),
                command=f"job {order.job}",
                device=resolve(order.device),
                dataset=order.dataset,
                group=group,
            )
            _publish(storage, outcome.path, outcome.record)
            if event_file:
                event_file.finish(config, outcome.record.metrics)
        curves.draw(outcome.network, outcome.dataset)
        with contextlib.suppress(OSError, ObjectsUnavailable):
            for path in storage.tensorboard(order.job).glob("*"):
                storage.hasty.publish(path)
        key = _dataset_key(order)
        self._datasets[key] = outcome.rows
        self._outcomes = {(key, outcome.record.sha256): outcome.outcomes}
        self._evaluated = {outcome.record.sha256: outcome.dataset}
        return messages.Fitted(
            record=outcome.record,
            metric=recipe.metric,
            higher_is_better=recipe.higher_is_better,
        )

    def _hosted(self, order: messages.Fit) -> contextlib.AbstractContextManager[Group | None]:
        """Wait for the other processes of a fit; None: there are none."""
        if order.group is None:
            return contextlib.nullcontext()

        def listening(port: int) -> None:
            self._tell(Listening(port=port))

        return hosted(order.group.address, order.group.size, resolve(order.device), listening)

    def _assist(self, order: messages.Assist) -> messages.Assisted:
        fit = order.fit
        recipe, config = self._configured(fit)
        device = resolve(fit.device)
        with joined(order.group.address, order.group.port, order.rank, order.group.size, device) as group:
            trained(
                fit.model,
                recipe,
                config,
                data=fit.data,
                report=lambda _: None,
                device=device,
                dataset=fit.dataset,
                group=group,
            )
        return messages.Assisted()

    def _evaluate(self, order: messages.Evaluate) -> messages.Evaluated:
        recipe, config = self._configured(order)
        key = _dataset_key(order)
        if key not in self._datasets:
            self._datasets[key] = loaded(order.model, recipe, config, order.data, order.dataset)
        if order.store is not None:
            Storage.at(order.store).fetch_checkpoint(order.path, order.record)
        artifacts = artifact_files.load(order.record.artifacts, order.path.parent)
        dataset = prepared(self._specs[order.model], self._datasets[key], artifacts)
        network = self._network(order)
        metrics, outcomes = held_out(recipe, network, dataset)
        self._evaluated = {order.record.sha256: dataset}
        judge = judge_of(recipe)
        if order.candidate is None or judge is None:
            spec = self._specs[order.model]
            drift = measured_drift(order.model, spec, network, dataset, artifacts) if order.drift else {}
            return messages.Evaluated(metrics=metrics, dataset=dataset.name, drift=drift)
        both = (
            self._of_candidate(order, order.candidate, judge),
            judge(network, dataset.validation) if outcomes is None else outcomes,
        )
        pairs = paired(*both, higher_is_better=recipe.higher_is_better)
        old, new = paired_apart(*both, _is_old(order, dataset), higher_is_better=recipe.higher_is_better)
        return messages.Evaluated(metrics=metrics, dataset=dataset.name, pairs=pairs, old=old, new=new)

    def _of_candidate(self, order: messages.Evaluate, file: messages.CheckpointFile, judge: Judge) -> Outcomes:
        """Return the outcomes of the candidate on the validation split: those of its fit, if they are known."""
        key = _dataset_key(order)
        known = self._outcomes.get((key, file.record.sha256))
        if known is not None:
            return known
        spec = self._specs[order.model]
        network, _ = state_dict.load(order.model, spec, file.path, file.record)
        artifacts = artifact_files.load(file.record.artifacts, file.path.parent)
        its_own = prepared(spec, self._datasets[key], artifacts)  # encoded with its artifacts
        return judge(network.eval(), its_own.validation)

    def _ingest(self, order: messages.Ingest) -> messages.Ingested:
        spec = self._specs[order.model]
        recipe = self._recipe(order.model)

        def tell(done: int, total: int) -> None:
            self._tell(messages.Progressed(point=Progress(epoch=0, epochs=1, step=done, steps=total, loss=0.0)))

        storage = Storage.at(order.store)
        try:
            storage.fetch(order.source, order.source.name)
            for version in (*order.kin, *([order.parent] if order.parent else [])):
                storage.fetch_dataset(order.model, version.name)
            with limited():
                made = ingested(order, spec, recipe, tell)
            storage.publish_dataset(order.model, made.sha256)
            storage.publish_thumbnails(storage.dataset(order.model, made.sha256))
        except DatasetError:
            _publish_report(storage, order)
            raise
        except CheckpointError as err:
            raise DatasetError("Missing dataset", str(err)) from err
        except OSError as err:
            raise StoreError(unwritable(err)) from err
        _publish_report(storage, order)
        return made

    def _adopt(self, order: messages.Adopt) -> messages.Adopted:
        try:
            return messages.Adopted(record=adopt(order, self._specs[order.model], self._recipes().get(order.model)))
        except OSError as err:
            raise StoreError(unwritable(err)) from err

    def _export(self, order: messages.Export) -> messages.ExportDone:
        spec = self._specs[order.model]
        artifacts = artifact_files.load(order.record.artifacts, order.path.parent)
        result = export(spec, self._network(order), artifacts)
        if order.judge and order.record.sha256 in self._evaluated:
            result = judged(result, spec, artifacts, self._evaluated[order.record.sha256])
        storage = Storage.at(order.store).hasty
        path = storage.export(order.record, spec)
        with contextlib.suppress(OSError, ObjectsUnavailable):  # the reader finds no file, and reports it
            onnx_file.write(result, path)
            storage.publish(path)
        return messages.ExportDone()

    def _explain(self, order: messages.Explain) -> messages.Explained:
        """Keeps the networks used last."""
        key = (order.model, order.record.sha256)
        if key not in self._explained:
            network = self._network(order)
            self._explained = {**dict(list(self._explained.items())[1 - _EXPLAINED :]), key: network}
        spec = self._specs[order.model]
        network = self._explained[key]
        outputs, attributions = attribute(spec, network, order.samples, order.method, order.inputs, order.output)
        return messages.Explained(outputs=outputs, attributions=attributions)

    def _network(self, order: messages.Evaluate | messages.Export | messages.Explain) -> nn.Module:
        network, _ = state_dict.load(order.model, self._specs[order.model], order.path, order.record)
        return network


def _publish(storage: Storage, path: Path, record: Record) -> None:
    """Give the object store, if there is one, a checkpoint. Raises StoreError, ObjectsUnavailable."""
    try:
        storage.publish_checkpoint(path, record)
    except OSError as err:
        raise StoreError(unwritable(err)) from err


def _publish_report(storage: Storage, order: messages.Ingest) -> None:
    """Give the object store, if there is one, the refused rows of an ingest that has read its file, and thumbnails of
    them. Raises StoreError, ObjectsUnavailable.
    """
    report = storage.report(order.model, order.job)
    try:
        if report.exists():
            storage.publish(report)
            storage.publish_thumbnails(storage.refused_rows(order.model, order.job))
    except OSError as err:
        raise StoreError(unwritable(err)) from err


def _in_words(order: messages.AnyOrder) -> tuple[str, str, str]:
    """Return the title of an unexpected error, the action that raised it, and the log that has its trace."""
    match order:
        case messages.Fit() | messages.Assist():
            return "Recipe failed", "the recipe", "the worker's log"
        case messages.Evaluate():
            return "Evaluation failed", "the evaluation of the checkpoint", "the log"
        case messages.Adopt():
            return "Upload failed", "the check of the upload", "the log"
        case messages.Export():
            return "Export failed", "the export of the checkpoint", "the log"
        case messages.Explain():
            return "Explanation failed", "the explanation", "the log"
        case messages.Ingest():
            return "Ingest failed", "reading the file", "the worker's log"


def _is_old(order: messages.Evaluate, dataset: Dataset) -> Tensor | None:
    """Return which validation examples are in the dataset version that the checkpoint was trained on, bool (N,).

    None if it is the same version, none, or one that was erased.
    """
    earlier, digests = order.trained_on, dataset.validation_digests
    if earlier is None or digests is None or earlier.sha256 == dataset.sha256:
        return None
    try:
        if earlier.store is not None:
            Storage.at(earlier.store).fetch_dataset(order.model, earlier.sha256)
        return torch.from_numpy(present(digests, read_index(earlier.folder).digests))
    except (DatasetError, CheckpointError):
        return None


def _dataset_key(order: messages.Fit | messages.Evaluate) -> str:
    sha256 = order.dataset.sha256 if order.dataset else None
    return json.dumps([order.model, dict(order.config), sha256], sort_keys=True)
