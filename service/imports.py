"""State_dicts from elsewhere: checked, kept in the store, evaluated, registered. Never promoted by themselves."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import torch

from models import checkpoint
from models.checkpoint import CheckpointError
from models.record import Record
from models.spec import ModelSpec
from service.child import Child, Message
from service.errors import Invalid
from service.recipes import ReadRecipes, RecipeSchema, complete_config
from service.registry import Registry, Version
from service.store import Store

log = logging.getLogger(__name__)
_EVALUATE_S = 120.0


class Importer:
    """Registers what callers upload, one at a time: each is evaluated by a process of its own."""

    def __init__(self, specs: Mapping[str, ModelSpec], store: Store, data: Path, recipes: ReadRecipes) -> None:
        self._specs = specs
        self._store = store
        self._registry = Registry(store)
        self._data = data
        self._recipes = recipes
        self._turn = asyncio.Lock()

    async def register(self, model: str, content: bytes, arguments: str) -> Version:
        """The new version of `model`. `arguments` is a JSON object of the network's constructor arguments.

        Raises Invalid, listing every key of the state_dict that does not fit.
        """
        named = _json_object(arguments)
        recipe = (await self._recipes()).get(model)
        async with self._turn:
            record, path = await asyncio.to_thread(self._keep, model, content, named)
            if recipe is not None:
                record = await asyncio.to_thread(self._evaluated, model, record, path, recipe)
            return await asyncio.to_thread(self._add, model, record, path)

    def _keep(self, model: str, content: bytes, arguments: Mapping[str, Any]) -> tuple[Record, Path]:
        """Check the upload by building the network from it, and write it to the store as torch.save would."""
        try:
            network = checkpoint.build(self._specs[model], arguments)
            checkpoint.adopt(network, checkpoint.read_state(content, "the upload"))
        except CheckpointError as err:
            raise Invalid(str(err)) from err
        rewritten = checkpoint.to_bytes(network.state_dict())
        sha256 = hashlib.sha256(rewritten).hexdigest()
        path = checkpoint.keep(rewritten, self._store.folder, model)
        record = Record(model=model, sha256=sha256, arguments=arguments, torch=torch.__version__, command="uploaded")
        return record, path

    def _evaluated(self, model: str, record: Record, path: Path, recipe: RecipeSchema) -> Record:
        """The record with figures on the recipe's default data set; without them where it is not at hand."""
        order = {
            "op": "evaluate",
            "model": model,
            "config": complete_config(model, {model: recipe}, {}),
            "data": str(self._data.resolve()),
            "path": str(path.resolve()),
            "record": asdict(record),
        }
        child = Child()
        try:
            child.send(order)
            answers = child.messages(_EVALUATE_S)
        finally:
            child.stop()
        answer: Message = answers[-1] if answers else {"kind": "error", "detail": "no answer in time"}
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
