"""Uploaded state_dicts and bundles: checked, saved in the store, evaluated, registered, not promoted."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from models.checkpoints import bundle
from models.checkpoints.bundle import BUNDLED
from models.checkpoints.location import DatasetFile
from models.checkpoints.record import Record
from models.errors import CheckpointError
from models.messages import Adopt, Adopted, Evaluate, Evaluated, Export, Failed, FailureKind
from service.delivery.registry import Registry, Version
from service.errors import Invalid, ObjectsAway, ServiceError, StoreUnavailable
from service.execution.process import Child, StartChild
from service.execution.recipes import ReadRecipes, RecipeSchema, complete_config, faults_of, unstorable, usable
from service.store.database import Store

log = logging.getLogger(__name__)
_ANSWER_S = 120.0
_BYTES_PER_S = 5_000_000  # slower than any disk: a large file gets more time


class Importer:
    """Register uploads, one at a time. A torch subprocess reads, evaluates and exports each."""

    def __init__(
        self,
        store: Store,
        data: Path,
        recipes: ReadRecipes,
        start_child: StartChild = Child,
        *,
        judge_forms: bool = False,
    ) -> None:
        self._store = store
        self._storage = store.storage
        self._registry = Registry(store)
        self._data = data
        self._recipes = recipes
        self._start_child = start_child
        self._judge = judge_forms
        self._turn = asyncio.Lock()

    async def register(self, model: str, pieces: AsyncIterator[bytes], arguments: str) -> Version:
        """Return the new version of `model`. `arguments` is a JSON object of the network's constructor arguments.

        A bundle's record has them: with a bundle, `arguments` is empty, or the same. Those with the name of a
        hyperparameter must be within its bounds. The pieces of the file are written to the store as they arrive. Raises
        Invalid, listing every key of the state_dict that does not fit, StoreUnavailable, and what `pieces` raises.
        """
        named = _json_object(arguments)
        recipe = usable(await self._recipes(), model)
        _require_bounds(recipe, named)
        with self._store.files(), self._storage.upload() as file:
            size = 0
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
                size += len(piece)
            await asyncio.to_thread(file.flush)
            order = await asyncio.to_thread(self._order, model, Path(file.name), named)
            _require_bounds(recipe, order.arguments)
            async with self._turn:
                answer_s = _ANSWER_S + size / _BYTES_PER_S
                record, path = await asyncio.to_thread(self._made_ready, order, answer_s, recipe)
                return await asyncio.to_thread(self._add, model, record, path)

    def _order(self, model: str, upload: Path, arguments: Mapping[str, Any]) -> Adopt:
        """Return the order to check an upload. Raises Invalid for a broken bundle, and if artifacts are missing."""
        store = self._storage.location()
        if not bundle.is_bundle(upload):
            self._require_no_artifacts(model)
            return Adopt(model=model, path=upload, arguments=arguments, store=store)
        try:
            record = bundle.read(model, upload).record
        except CheckpointError as err:
            raise Invalid(str(err)) from err
        if fault := unstorable(
            [dict(record.config), dict(record.arguments), dict(record.reference), dict(record.drift)]
        ):
            raise Invalid(f"the record in the bundle: {fault}")
        named = record.arguments
        if arguments and arguments != named:
            raise Invalid("arguments: the record in the bundle has others: leave out ?arguments")
        return Adopt(model=model, path=upload, arguments=named, store=store, bundle=True)

    def _require_no_artifacts(self, model: str) -> None:
        """Raise Invalid if the model's weights have artifacts: a state_dict has none, and would answer wrongly."""
        for version in self._registry.versions(model, limit=1):
            if names := ", ".join(sorted(version.record.get("artifacts", {}))):
                raise Invalid(
                    f"the weights of {model} come with {names}, which a state_dict file does not carry: {BUNDLED}"
                )

    def _made_ready(self, order: Adopt, answer_s: float, recipe: RecipeSchema | None) -> tuple[Record, Path]:
        """Have the file checked, saved, evaluated and exported; each order may take `answer_s` seconds."""
        child = self._start_child()
        try:
            record, path = self._adopted(child, order, answer_s)
            if recipe is not None:
                record = self._evaluated(child, order.model, record, path, answer_s, recipe)
            export = Export(model=order.model, path=path.resolve(), record=record, store=order.store, judge=self._judge)
            child.ask(export, answer_s)
        finally:
            child.stop()
        return record, path

    def _adopted(self, child: Child, order: Adopt, answer_s: float) -> tuple[Record, Path]:
        """Check the upload by building the network from it, and save it in the store as torch.save writes it."""
        answer = child.ask(order, answer_s)
        match answer:
            case Adopted(record=record):
                return record, self._storage.checkpoint(order.model, record.sha256)
            case Failed(kind=FailureKind.CHECKPOINT, detail=detail):
                raise Invalid(detail)
            case Failed(kind=FailureKind.STORE, detail=detail):
                raise StoreUnavailable(detail)
            case Failed(kind=FailureKind.OBJECTS, detail=detail):
                raise ObjectsAway(detail)
            case None:
                raise Invalid(_no_answer(answer_s))
            case _:
                raise ServiceError(f"the upload could not be checked: {answer.detail}")

    def _evaluated(
        self, child: Child, model: str, record: Record, path: Path, answer_s: float, recipe: RecipeSchema
    ) -> Record:
        """Return the record with figures on the dataset of the live version, else on the recipe's default dataset;
        without them if neither is available.
        """
        live = self._live_dataset(model)
        for dataset in (None,) if live is None else (live, None):
            order = Evaluate(
                model=model,
                config=complete_config(model, {model: recipe}, {}),
                data=self._data.resolve(),
                path=path.resolve(),
                record=record,
                store=self._storage.location(),
                dataset=dataset,
                drift=True,
            )
            answer = child.ask(order, answer_s)
            if isinstance(answer, Evaluated):
                sha256 = dataset.sha256 if dataset else ""
                return replace(
                    record,
                    metrics=answer.metrics,
                    dataset=answer.dataset,
                    dataset_sha256=sha256,
                    drift=record.drift or answer.drift,
                )
            if answer is not None and answer.kind is FailureKind.OBJECTS:
                raise ObjectsAway(answer.detail)
            log.warning("upload not evaluated", extra={"model": model, "reason": _reason(answer)})
        return record

    def _live_dataset(self, model: str) -> DatasetFile | None:
        """Return the dataset version that the live version was evaluated on; None if it is the data of the recipe."""
        live = self._registry.live().get(model)
        record = {} if live is None else self._registry.version(model, live).record
        if not record.get("dataset_sha256"):
            return None
        folder = self._storage.dataset(model, record["dataset_sha256"]).resolve()
        store = self._storage.location()
        return DatasetFile(label=record["dataset"], sha256=record["dataset_sha256"], folder=folder, store=store)

    def _add(self, model: str, record: Record, path: Path) -> Version:
        with self._store.write() as connection:
            self._storage.publish_missing(path, record)
            number = self._registry.add(connection, model, path, record, job=None, now=time.time())
        fields = {"model": model, "version": number, "sha256": record.sha256[:12], "notes": list(record.notes)}
        log.info("version registered", extra=fields)
        return self._registry.version(model, number)


def _require_bounds(recipe: RecipeSchema | None, arguments: Mapping[str, Any]) -> None:
    """Raise Invalid for arguments that are hyperparameters out of their bounds."""
    if recipe is not None and (faults := faults_of(recipe, arguments)):
        raise Invalid(f"arguments: {'; '.join(sorted(faults))}")


def _no_answer(answer_s: float) -> str:
    return (
        f"the upload was not checked in {answer_s:.0f} seconds, or its check ran out of memory: "
        "the network of these arguments is too large for this machine"
    )


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise Invalid("arguments must be a JSON object of the network's constructor arguments") from err
    if not isinstance(value, dict):
        raise Invalid("arguments must be a JSON object of the network's constructor arguments")
    return value


def _reason(failed: Failed | None) -> str:
    return failed.detail if failed else "no answer in time"
