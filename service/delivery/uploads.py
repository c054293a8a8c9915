"""State_dicts from elsewhere: checked, kept in the store, evaluated, registered. Never promoted by themselves."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import orjson

from models.checkpoints.files import unwritable
from models.checkpoints.record import Record
from models.messages import Message
from models.messages import order as export_order
from service.delivery.registry import Registry, Version
from service.errors import Invalid, ServiceError, StoreUnavailable
from service.execution.process import Child, StartChild
from service.execution.recipes import ReadRecipes, RecipeSchema, complete_config
from service.store.database import Store

log = logging.getLogger(__name__)
_ANSWER_S = 120.0


class Importer:
    """Registers what callers upload, one at a time: a process of its own reads, evaluates and exports each."""

    def __init__(self, store: Store, data: Path, recipes: ReadRecipes, start_child: StartChild = Child) -> None:
        self._store = store
        self._registry = Registry(store)
        self._data = data
        self._recipes = recipes
        self._start_child = start_child
        self._turn = asyncio.Lock()

    async def register(self, model: str, content: bytes, arguments: str) -> Version:
        """The new version of `model`. `arguments` is a JSON object of the network's constructor arguments.

        Raises Invalid, listing every key of the state_dict that does not fit, and StoreUnavailable.
        """
        named = _json_object(arguments)
        recipe = (await self._recipes()).get(model)
        async with self._turn:
            record, path = await asyncio.to_thread(self._made_ready, model, content, named, recipe)
            return await asyncio.to_thread(self._add, model, record, path)

    def _made_ready(
        self,
        model: str,
        content: bytes,
        arguments: Mapping[str, Any],
        recipe: RecipeSchema | None,
    ) -> tuple[Record, Path]:
        child = self._start_child()
        try:
            record, path = self._adopted(child, model, content, arguments)
            if recipe is not None:
                record = self._evaluated(child, model, record, path, recipe)
            _last_word(child, export_order(self._store.folder, model, path, record))
        finally:
            child.stop()
        return record, path

    def _adopted(self, child: Child, model: str, content: bytes, arguments: Mapping[str, Any]) -> tuple[Record, Path]:
        """The upload, checked by building the network from it, in the store as torch.save would write it."""
        folder = self._store.folder.resolve()
        try:
            with NamedTemporaryFile(dir=folder, prefix=".upload-") as file:
                file.write(content)
                file.flush()
                order = {"op": "adopt", "model": model, "path": file.name, "arguments": arguments, "store": str(folder)}
                answer = _last_word(child, order)
        except OSError as err:
            raise StoreUnavailable(unwritable(err)) from err
        if answer["kind"] == "result":
            return Record(**answer["record"]), self._store.folder / answer["path"]
        if answer["title"] == "Broken checkpoint":
            raise Invalid(answer["detail"])
        if answer["title"] == StoreUnavailable.title:
            raise StoreUnavailable(answer["detail"])
        raise ServiceError(f"the upload could not be checked: {answer['detail']}")

    def _evaluated(self, child: Child, model: str, record: Record, path: Path, recipe: RecipeSchema) -> Record:
        """The record with figures on the recipe's default data set; without them where it is not at hand."""
        order = {
            "op": "evaluate",
            "model": model,
            "config": complete_config(model, {model: recipe}, {}),
            "data": str(self._data.resolve()),
            "path": str(path.resolve()),
            "record": asdict(record),
        }
        answer = _last_word(child, order)
        if answer["kind"] != "result":
            log.warning("upload not evaluated", extra={"model": model, "reason": answer["detail"]})
            return record
        return replace(record, metrics=answer["metrics"], dataset=answer["dataset"])

    def _add(self, model: str, record: Record, path: Path) -> Version:
        with self._store.write() as connection:
            number = self._registry.add(connection, model, path, record, job=None, now=time.time())
        log.info("version registered", extra={"model": model, "version": number, "sha256": record.sha256[:12]})
        return self._registry.version(model, number)


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as err:
        raise Invalid("arguments must be a JSON object of the network's constructor arguments") from err
    if not isinstance(value, dict):
        raise Invalid("arguments must be a JSON object of the network's constructor arguments")
    return value


def _last_word(child: Child, order: Message) -> Message:
    return child.ask(order, _ANSWER_S) or {"kind": "error", "title": "No answer", "detail": "no answer in time"}
