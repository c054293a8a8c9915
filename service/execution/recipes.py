"""Schemas of the recipes, read from a subprocess.

The web process never imports training. `python -m training --schemas` prints the schemas and ends, so that its memory
is not held by the web process.
"""

import asyncio
import contextlib
import logging
import math
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

import models
from models.checkpoints.files import write_whole
from models.checkpoints.storage import Storage
from models.errors import shown
from service.errors import Invalid
from service.settings import for_training

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

log = logging.getLogger(__name__)
_ROOT = Path(models.__file__).parents[1]
_DESCRIBED = {"hyperparameters", "metric", "higher_is_better", "target", "built_in"}
_DEPTH = 16  # of brackets in a hyperparameter
_LONGEST_NAME = 80  # characters that are compared with known names


def _is_whole(_: object, value: object) -> bool:
    """Return whether a value is an integer in JSON: JSON Schema itself counts 1.0 as one."""
    return type(value) is int


@cache
def _validator() -> Any:
    """Return the class of validators, which is imported for the first order: it takes 30 ms."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_whole)
    return extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSchema:
    """A recipe as the web process knows it. `hyperparameters` is a JSON schema with defaults and bounds.

    `target`: the field that it learns from a user's file, label or value; None: it takes no files. `built_in`: its own
    data, by name, and the examples in each split. `fault` says why the file of the recipe cannot be used, with file and
    line; the rest is empty then.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""
    higher_is_better: bool = True
    target: Literal["label", "value"] | None = None
    built_in: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fault: str = ""


ReadRecipes = Callable[[], Awaitable[Mapping[str, RecipeSchema]]]


async def ask_training(environ: Mapping[str, str] | None = None) -> bytes:
    """Return the output of `python -m training --schemas`; empty, with an error in the log, if it fails.

    `environ` is as for Child.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "training",
        "--schemas",
        cwd=_ROOT,
        env=for_training(os.environ if environ is None else environ),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal is for the parent alone
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        fields = {"exit": process.returncode, "output": said.decode(errors="replace")}
        log.error("recipes not read: python -m training --schemas failed", extra=fields)
        return b""
    return output


async def read_recipes(store: Path, ask: Callable[[], Awaitable[bytes]] = ask_training) -> Mapping[str, RecipeSchema]:
    """Return model name -> recipe. Empty, with an error in the log, if training cannot be imported.

    The result is cached in the store under a digest of the code, because the subprocess takes seconds. It is not cached
    if a recipe cannot be imported: the reason may be outside the code, for example a package that is not installed.
    """
    kept = Storage(store).recipes()
    try:
        return _parsed(await asyncio.to_thread(kept.read_bytes))
    except (OSError, ValueError, TypeError, AttributeError):  # missing, or not written by this code
        pass
    output = await ask()
    try:
        found = _parsed(output or b"{}")
    except (ValueError, TypeError, AttributeError):
        log.exception("recipes not read: python -m training --schemas printed %r", output[:300])
        return {}
    faults = [recipe.fault for recipe in found.values() if recipe.fault]
    for fault in faults:
        log.error("left aside: %s", fault)
    if output and not faults:
        with contextlib.suppress(OSError):  # read again at the next start
            await asyncio.to_thread(write_whole, output, kept)
    return found


def _parsed(output: bytes) -> Mapping[str, RecipeSchema]:
    """Raises ValueError, TypeError or AttributeError if the output is not that of `python -m training --schemas`."""
    if not all(fields.keys() in ({"fault"}, _DESCRIBED) for fields in orjson.loads(output).values()):
        raise ValueError("a recipe has other fields")
    return {name: RecipeSchema(**fields) for name, fields in orjson.loads(output).items()}


def usable(recipes: Mapping[str, RecipeSchema], model: str) -> RecipeSchema | None:
    """Return the recipe of a model; None if it has none, or a faulty one."""
    recipe = recipes.get(model)
    return None if recipe is None or recipe.fault else recipe


class Recipes:
    """The recipes, read once in the background: `async with` it, then call it."""

    def __init__(self, read: ReadRecipes) -> None:
        self._read = read

    async def __aenter__(self) -> None:
        self._reading = asyncio.ensure_future(self._read())

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def __call__(self) -> Mapping[str, RecipeSchema]:
        """Return model name -> recipe. A cancelled caller does not cancel the reading."""
        return await asyncio.shield(self._reading)


def complete_config(model: str, recipes: Mapping[str, RecipeSchema], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` completed with the recipe's defaults. Raises Invalid, naming each bad hyperparameter."""
    if model not in recipes:
        raise Invalid(
            f"{model} has no recipe: it can be served, not trained. A recipe is written in training/{model}.py"
        )
    if recipes[model].fault:
        raise Invalid(f"{model} cannot be trained until this is corrected: {recipes[model].fault}")
    known = recipes[model].hyperparameters["properties"]
    faults = [f"{shown(name)}: {_unknown(name, known)}" for name in config.keys() - known]
    faults += faults_of(recipes[model], config)
    if faults:
        raise Invalid("; ".join(sorted(faults)))
    return {name: config.get(name, field.get("default")) for name, field in known.items()}


def require_target(model: str, recipes: Mapping[str, RecipeSchema]) -> None:
    """Raise Invalid if the model's recipe, which is there, learns no files."""
    if recipes[model].target is None:
        raise Invalid(
            f'{model} cannot be trained on files: add target="label" or target="value" to training/{model}.py'
        )


def _unknown(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name[:_LONGEST_NAME], known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown hyperparameter; {hint}known are {', '.join(known)}"


def faults_of(recipe: RecipeSchema, values: Mapping[str, Any]) -> list[str]:
    """Check the values that are hyperparameters of the recipe, and return one message for each fault."""
    known = recipe.hyperparameters["properties"]
    faults = []
    for name in known.keys() & values.keys():
        if fault := unstorable(values[name]):
            faults.append(f"{name}: {fault}")
        else:
            faults += [f"{name}: {_in_words(error)}" for error in _validator()(known[name]).iter_errors(values[name])]
    return faults


def _in_words(error: "ValidationError") -> str:
    """Return the message of an error, with the way out if a whole number has a fraction or an exponent."""
    way_out = ": write it without a point or an exponent" if isinstance(error.instance, float) else ""
    is_type = error.validator == "type" and "integer" in str(error.validator_value)
    return error.message[:200] + (way_out if is_type else "")


def unstorable(value: object) -> str:
    """Say why a value cannot be kept in the database and sent as JSON; empty if it can."""
    rest = [(value, 0)]
    while rest:
        item, depth = rest.pop()
        match item:
            case float() if not math.isfinite(item):
                return f"{item} is not a finite number"
            case int() if abs(item) >= 2**63:
                return "a whole number must fit 64 bits"
            case str() if any("\ud800" <= letter <= "\udfff" for letter in item):
                return "the text has a lone surrogate"
            case list() | dict() if depth == _DEPTH:
                return "too many levels of brackets"
            case list():
                rest += [(inner, depth + 1) for inner in item]
            case dict():
                rest += [(inner, depth + 1) for inner in [*item, *item.values()]]
    return ""
