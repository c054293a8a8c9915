"""Parse command-line options into hyperparameters, by a recipe's JSON schema (GET /models)."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from service.client.errors import BadArgument

_INDENT, _WIDTH = 24, 100  # columns of a help page
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


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
            options = [f"--{name.replace('_', '-')}" for name in known]
            near = get_close_matches(name, known, 1)
            hint = f"did you mean --{near[0].replace('_', '-')}? " if near else ""
            raise BadOption(f"{flag} is not a hyperparameter of {model}; {hint}known are {' '.join(options)}")
        elif known[name].get("type") == "boolean":
            config[name] = True
        else:
            count = known[name].get("maxItems", 1)
            values, rest = rest[:count], rest[count:]
            config[name] = _value(flag, known[name], values)
    return config


def described(model: str, schema: Mapping[str, Any] | None) -> str:
    """Return the lines of a help page: each hyperparameter as an option, with its description, bounds and default."""
    if schema is None:
        return f"{model} has no hyperparameters: it has no recipe, and cannot be trained here"
    lines = [f"hyperparameters of {model}:"]
    for name, field in schema["properties"].items():
        flag = f"--{name.replace('_', '-')}"
        option = f"--[no-]{flag[2:]}" if field.get("type") == "boolean" else f"{flag} {_argument(field)}"
        words = "; ".join(filter(None, [field.get("description", ""), _bounds(field)]))
        text = f"{words} [{_plain(field.get('default'))}]".strip()
        first = f"  {option}  ".ljust(_INDENT)
        if len(first) > _INDENT:
            lines.append(first.rstrip())
            first = " " * _INDENT
        lines += textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * _INDENT)
    return "\n".join(lines)


def _argument(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "{" + ",".join(map(str, schema["enum"])) + "}"
    return " ".join(["VALUE"] * schema.get("maxItems", 1))


def _bounds(schema: Mapping[str, Any]) -> str:
    """Return the bounds of a number, as `1 to 10` or `above 0, at most 100`."""
    found = {key: value for choice in schema.get("anyOf", [schema]) for key, value in choice.items()}
    if "minimum" in found and "maximum" in found:
        return f"{_plain(found['minimum'])} to {_plain(found['maximum'])}"
    words = [f"{word} {_plain(found[key])}" for key, word in _BOUNDS.items() if key in found]
    return ", ".join(words)


def _plain(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case list():
            return " ".join(map(_plain, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)


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
