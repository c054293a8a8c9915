"""Parse command-line options into hyperparameters, by a recipe's JSON schema (GET /models)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.client.errors import BadArgument


class BadOption(BadArgument):
    """An unknown option or a value of a wrong type."""


def read(model: str, schema: Mapping[str, Any] | None, words: Sequence[str]) -> dict[str, Any]:
    """Parse `["--epochs", "1", "--no-shuffle"]` into `{"epochs": 1, "shuffle": False}`; the service checks bounds.

    Raises BadOption for an unknown name or a value of another type.
    """
    if schema is None:
        raise BadOption(f"{model} cannot be trained here: it has no recipe")
    known: Mapping[str, Any] = schema["properties"]
    config: dict[str, Any] = {}
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    while rest:
        flag = rest.pop(0)
        name = flag.removeprefix("--").replace("-", "_")
        negated = name.removeprefix("no_")
        if flag.startswith("--no-") and known.get(negated, {}).get("type") == "boolean":
            config[negated] = False
        elif not flag.startswith("--") or name not in known:
            options = " ".join(f"--{name.replace('_', '-')}" for name in known)
            raise BadOption(f"{flag} is not a hyperparameter of {model}; known are {options}")
        elif known[name].get("type") == "boolean":
            config[name] = True
        else:
            count = known[name].get("maxItems", 1)
            values, rest = rest[:count], rest[count:]
            config[name] = _value(flag, known[name], values)
    return config


def _value(flag: str, schema: Mapping[str, Any], words: Sequence[str]) -> Any:
    if len(words) < schema.get("maxItems", 1):
        raise BadOption(f"{flag} takes {schema.get('maxItems', 'a')} value{'s' if 'maxItems' in schema else ''}")
    if "prefixItems" in schema:
        return [_one(flag, kind, word) for kind, word in zip(schema["prefixItems"], words, strict=True)]
    return _one(flag, schema, words[0])


def _one(flag: str, schema: Mapping[str, Any], word: str) -> Any:
    kinds = [choice.get("type") for choice in schema.get("anyOf", [schema])]
    if "null" in kinds and word == "none":
        return None
    try:
        if "integer" in kinds:
            return int(word)
        if "number" in kinds:
            return _finite(flag, word)
    except ValueError as err:
        raise BadOption(f"{flag} {word}: must be {'an integer' if 'integer' in kinds else 'a number'}") from err
    return word


def _finite(flag: str, word: str) -> float:
    """Parse a number. Raises BadOption for NaN and infinity, which JSON does not have, and ValueError."""
    number = float(word)
    if not math.isfinite(number):
        raise BadOption(f"{flag} {word}: must be a finite number")
    return number
