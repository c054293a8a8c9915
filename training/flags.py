"""Command-line flags for a recipe's hyperparameters, generated from the fields of its Config."""

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
        """Print the message and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_flags(group: argparse._ArgumentGroup, config: type[Hyperparameters]) -> None:
    """Add one flag per field. Values stay strings: `read_config` validates them."""
    for name, schema in properties(config).items():
        text = f"{schema.get('description', '')} ({_default(config, name, schema)})".strip().replace("%", "%%")
        if schema.get("type") == "boolean":
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            text += f": {_allowed(schema)}"
            nargs = schema.get("maxItems", "*") if schema.get("type") == "array" else None
            group.add_argument(_flag(name), nargs=nargs, default=argparse.SUPPRESS, help=text)


def add_presets(group: argparse._ArgumentGroup, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Add `--preset NAME`, with the values of each preset in its help text."""
    said = "; ".join(f"{name} is {' '.join(_words(values))}" for name, values in presets.items())
    text = f"named set of hyperparameters; other flags override it. {said}".replace("%", "%%")
    group.add_argument("--preset", choices=list(presets), help=text)


def read_config(config: type[C], values: Mapping[str, Any], preset: Mapping[str, Any] | None = None) -> C:
    """Build the Config: `values` override the preset, and the preset overrides the defaults.

    Raises ValueError with the flag and its bounds.
    """
    known = properties(config)
    given = {name: _typed(known[name], values[name]) for name in known if name in values}
    try:
        return config.model_validate({**(preset or {}), **given})
    except ValidationError as err:
        name = str(err.errors()[0]["loc"][0])
        if name not in given:
            raise ValueError(f"{_flag(name)} is required: give {_allowed(known[name])}") from err
        raise ValueError(f"{_flag(name)} {shown(values[name])}: must be {_allowed(known[name])}") from err


def command_line(
    name: str,
    config: Hyperparameters,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> str:
    """Build the command that reproduces this run on the same data folder, with every value that is not the default.

    With a preset, `values` are its hyperparameters, and only values that differ from them are included.
    """
    words = ["python", "-m", "training", name]
    words += ["--preset", preset] if preset else []
    usual = type(config)(**(values or {}))
    fields = type(config).model_fields
    changed = {field: getattr(config, field) for field in fields if getattr(config, field) != getattr(usual, field)}
    return shlex.join([*words, *_words(changed)])


def _words(values: Mapping[str, Any]) -> list[str]:
    """Format values as flags."""
    words: list[str] = []
    for field, value in values.items():
        words += [_flag(field, negated=value is False)]
        if isinstance(value, str):
            words.append(value)
        elif not isinstance(value, bool):
            words += shown(value).split()
    return words


def properties(config: type[Hyperparameters]) -> dict[str, dict[str, Any]]:
    """Map fields to their JSON schemas, with references to classes such as an Enum replaced."""
    schema = config.model_json_schema()
    classes = {f"#/$defs/{name}": found for name, found in schema.get("$defs", {}).items()}
    known: dict[str, dict[str, Any]] = schema["properties"]
    return {name: {**classes.get(field.get("$ref", ""), {}), **field} for name, field in known.items()}


def _default(config: type[Hyperparameters], name: str, schema: Mapping[str, Any]) -> str:
    field = config.model_fields[name]
    if field.is_required():
        return "required"
    return f"default {shown(schema.get('default', field.get_default(call_default_factory=True)))}"


def _typed(schema: Mapping[str, Any], value: Any) -> Any:
    """Return the member of an enumeration that is written so: a flag's value is text, a Literal may have numbers."""
    return {str(member): member for member in schema.get("enum", ())}.get(str(value), value)


def _flag(name: str, *, negated: bool = False) -> str:
    return ("--no-" if negated else "--") + name.replace("_", "-")


def shown(value: object) -> str:
    """Format a value as typed after its flag."""
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _allowed(schema: Mapping[str, Any]) -> str:
    """Describe the valid values of a field: "an integer >= 1 and <= 10000"."""
    if "anyOf" in schema:
        schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "prefixItems" in schema:
        return f"{schema['maxItems']} values, each {_allowed(schema['prefixItems'][0])}"
    if schema.get("type") == "boolean":
        return "on or off"
    if "items" in schema:
        return f"any number of values, each {_allowed(schema['items'])}"
    kind = {"integer": "an integer", "number": "a number", "string": "a text"}.get(schema.get("type", ""), "any value")
    bounds = [f"{sign} {schema[key]:.10g}" for key, sign in _BOUNDS.items() if key in schema]
    return f"{kind} {' and '.join(bounds)}".strip()


_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minLength": "of length >=",
    "maxLength": "of length <=",
}
