"""A recipe's hyperparameters as flags of a command line, drawn from the fields of its Config alone."""

import argparse
import shlex
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from training.recipe import Hyperparameters

C = TypeVar("C", bound=Hyperparameters)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line; abbreviated flags are errors too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_flags(group: argparse._ArgumentGroup, config: type[Hyperparameters]) -> None:
    """One flag a field. Values stay the strings that were typed: `read_config` judges them all."""
    for name, schema in _properties(config).items():
        text = f"{schema['description']} (default {_shown(schema['default'])})".replace("%", "%%")
        if schema.get("type") == "boolean":
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            text += f": {_allowed(schema)}"
            group.add_argument(_flag(name), nargs=schema.get("maxItems"), default=argparse.SUPPRESS, help=text)


def read_config(config: type[C], values: Mapping[str, Any]) -> C:
    """The Config with these values in place of its defaults. Raises ValueError, naming the flag and its bounds."""
    properties = _properties(config)
    try:
        return config.model_validate({name: values[name] for name in properties if name in values})
    except ValidationError as err:
        name = str(err.errors()[0]["loc"][0])
        raise ValueError(f"{_flag(name)} {_shown(values[name])}: must be {_allowed(properties[name])}") from err


def command_line(name: str, config: Hyperparameters) -> str:
    """The command that does this run again, given the same data folder: every value that is not the default."""
    words = ["python", "-m", "training", name]
    defaults = type(config)()
    for field in type(config).model_fields:
        value = getattr(config, field)
        if value == getattr(defaults, field):
            continue
        words += [_flag(field, negated=value is False)]
        words += [] if isinstance(value, bool) else _shown(value).split()
    return shlex.join(words)


def _properties(config: type[Hyperparameters]) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = config.model_json_schema()["properties"]
    return properties


def _flag(name: str, *, negated: bool = False) -> str:
    return ("--no-" if negated else "--") + name.replace("_", "-")


def _shown(value: object) -> str:
    """A value as it is typed after its flag."""
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _allowed(schema: Mapping[str, Any]) -> str:
    """The values that a field may take, in words: "an integer >= 1 and <= 10000"."""
    if "anyOf" in schema:
        schema = next(choice for choice in schema["anyOf"] if choice["type"] != "null")
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "prefixItems" in schema:
        return f"{schema['maxItems']} values, each {_allowed(schema['prefixItems'][0])}"
    kind = {"integer": "an integer", "number": "a number"}[schema["type"]]
    bounds = [f"{sign} {schema[key]:.10g}" for key, sign in _BOUNDS.items() if key in schema]
    return f"{kind} {' and '.join(bounds)}".strip()


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
