"""Uploaded state_dicts: checked, saved in the store, evaluated, registered, not promoted."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.messages import Adopt, Adopted, Evaluate, Evaluated, Export, Failed, FailureKind
from service.delivery.registry import Registry, Version
from service.errors import Invalid, ServiceError, StoreUnavailable
from service.execution.process import Child, StartChild
from service.execution.recipes import ReadRecipes, RecipeSchema, complete_config, faults_of, usable
from service.store.database import Store

log = logging.getLogger(__name__)
_ANSWER_S = 120.0
_BYTES_PER_S = 5_000_000  # slower than any disk: a large file gets more time


class Importer:
    """Register uploads, one at a time. A torch subprocess reads, evaluates and exports each."""

    def __init__(self, store: Store, data: Path, recipes: ReadRecipes, start_child: StartChild = Child) -> None:
        self._store = store
        self._storage = Storage(store.folder)
        self._registry = Registry(store)
        self._data = data
        self._recipes = recipes
        self._start_child = start_child
        self._turn = asyncio.Lock()

    async def register(self, model: str, pieces: AsyncIterator[bytes], arguments: str) -> Version:
        """Return the new version of `model`. `arguments` is a JSON object of the network's constructor arguments.

        Arguments with the name of a hyperparameter must be within its bounds. The pieces of the file are written to the
        store as they arrive. Raises Invalid, listing every key of the state_dict that does not fit, StoreUnavailable,
        and what `pieces` raises.
        """
        named = _json_object(arguments)
        recipe = usable(await self._recipes(), model)
        if recipe is not None and (faults := faults_of(recipe, named)):
            raise Invalid(f"arguments: {'; '.join(sorted(faults))}")
        await asyncio.to_thread(self._require_no_artifacts, model)
        with self._store.files(), self._storage.upload() as file:
            size = 0
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
                size += len(piece)
            await asyncio.to_thread(file.flush)
            async with self._turn:
                record, path = await asyncio.to_thread(
                    self._made_ready, model, Path(file.name), _ANSWER_S + size / _BYTES_PER_S, named, recipe
                )
                return await asyncio.to_thread(self._add, model, record, path)

    def _require_no_artifacts(self, model: str) -> None:
        """Raise Invalid if the model's weights have artifacts: a state_dict has none, and would answer wrongly."""
        for version in self._registry.versions(model, limit=1):
            if names := ", ".join(sorted(version.record.get("artifacts", {}))):
                raise Invalid(
                    f"the weights of {model} come with {names}, which a state_dict file does not carry: train it here, "
                    f"or register the checkpoint and its record with python -m training {model} --register"
                )

    def _made_ready(
        self,
        model: str,
        upload: Path,
        answer_s: float,
        arguments: Mapping[str, Any],
        recipe: RecipeSchema | None,
    ) -> tuple[Record, Path]:
        """Have the file checked, saved, evaluated and exported; each order may take `answer_s` seconds."""
        child = self._start_child()
        try:
            record, path = self._adopted(child, model, upload, answer_s, arguments)
            if recipe is not None:
                record = self._evaluated(child, model, record, path, answer_s, recipe)
            store = self._storage.root.resolve()
            child.ask(Export(model=model, path=path.resolve(), record=record, store=store), answer_s)
        finally:
            child.stop()
        return record, path

    def _adopted(
        self, child: Child, model: str, upload: Path, answer_s: float, arguments: Mapping[str, Any]
    ) -> tuple[Record, Path]:
        """Check the upload by building the network from it, and save it in the store as torch.save writes it."""
        store = self._storage.root.resolve()
        answer = child.ask(Adopt(model=model, path=upload, arguments=arguments, store=store), answer_s)
        match answer:
            case Adopted(record=record):
                return record, self._storage.checkpoint(model, record.sha256)
            case Failed(kind=FailureKind.CHECKPOINT, detail=detail):
                raise Invalid(detail)
            case Failed(kind=FailureKind.STORE, detail=detail):
                raise StoreUnavailable(detail)
            case None:
                raise Invalid(_no_answer(answer_s))
            case _:
                raise ServiceError(f"the upload could not be checked: {answer.detail}")

    def _evaluated(
        self, child: Child, model: str, record: Record, path: Path, answer_s: float, recipe: RecipeSchema
    ) -> Record:
        """Return the record with figures on the recipe's default dataset; without them if it is not available."""
        order = Evaluate(
            model=model,
            config=complete_config(model, {model: recipe}, {}),
            data=self._data.resolve(),
            path=path.resolve(),
            record=record,
        )
        answer = child.ask(order, answer_s)
        if isinstance(answer, Evaluated):
            return replace(record, metrics=answer.metrics, dataset=answer.dataset)
        log.warning("upload not evaluated", extra={"model": model, "reason": _reason(answer)})
        return record

    def _add(self, model: str, record: Record, path: Path) -> Version:
        with self._store.write() as connection:
            number = self._registry.add(connection, model, path, record, job=None, now=time.time())
        fields = {"model": model, "version": number, "sha256": record.sha256[:12], "notes": list(record.notes)}
        log.info("version registered", extra=fields)
        return self._registry.version(model, number)


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
