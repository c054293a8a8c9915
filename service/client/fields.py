"""Values of named inputs from texts: `name=value` fields and CSV files, read as the model's signature says."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from service.client import files
from service.client.answers import Input, Model
from service.client.errors import BadArgument


def named_inputs(model: Model) -> Mapping[str, Input]:
    """Return the named inputs of a model by name; none if its samples are arrays."""
    inputs = ((model.get("body_schema") or {}).get("properties") or {}).get("inputs") or {}
    items = inputs.get("items") or {}
    if not any("properties" in one for one in (items, *items.get("anyOf", []))):
        return {}
    return {one["name"]: one for one in (model.get("signature") or {"inputs": []})["inputs"]}


def takes_texts(model: Model) -> bool:
    """Return whether a sample of the model may be a plain text: its only input is a text."""
    return [one["kind"] for one in named_inputs(model).values()] == ["text"]


def sample(model: Model, given: Iterable[str]) -> dict[str, Any]:
    """Read `name=value` fields as one sample. A picture is `name=@FILE`. Raises BadArgument."""
    found: dict[str, Any] = {}
    for field in given:
        name, equals, text = field.partition("=")
        if not equals:
            raise BadArgument(f"{field!r} is no field: write it as NAME=VALUE, a picture as NAME=@FILE")
        if name in found:
            raise BadArgument(f"{name} is given twice: fields are those of one sample; pass several as --inputs")
        kind = _input(model, name)
        if kind["kind"] == "picture" and not text.startswith("@"):
            raise BadArgument(f"{name} is a picture: name its file after @, as {name}=@FILE")
        found[name] = _value(text[1:] if kind["kind"] == "picture" else text, kind, Path())
    return found


def rows(model: Model, item: Any) -> list[dict[str, Any]]:
    """Read a CSV file with a header of the inputs' names: a sample a row; an empty cell means the default.

    A picture is the name of its file, relative to the folder of the CSV file. Raises BadArgument.
    """
    content, name = files.read(item)
    shown = name or "the CSV file"
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header, *lines = [line for line in reader if line]
    except UnicodeDecodeError as err:
        raise BadArgument(f"{shown} is not a text in UTF-8: save it as CSV in UTF-8") from err
    except (csv.Error, ValueError) as err:
        raise BadArgument(f"{shown} is not a CSV file ({err}): its first line names the inputs") from err
    kinds = [_input(model, name.strip()) for name in header]
    for number, line in enumerate(lines, 1):
        if len(line) != len(kinds):
            raise BadArgument(f"{shown}: row {number} has {len(line)} cells, the header has {len(kinds)}")
    if not lines:
        raise BadArgument(f"{shown} has a header, but no rows")
    folder = Path(name).parent
    return [
        {kind["name"]: _value(cell, kind, folder) for kind, cell in zip(kinds, line, strict=True)} for line in lines
    ]


def _input(model: Model, name: str) -> Input:
    inputs = named_inputs(model)
    if not inputs:
        raise BadArgument(f"{model['name']} has no named inputs: pass its samples as --inputs or files")
    if name not in inputs:
        known = ", ".join(name if one["required"] else f"{name} (optional)" for name, one in inputs.items())
        raise BadArgument(f"{model['name']} has no input {name!r}: it takes {known}")
    return inputs[name]


def _value(text: str, kind: Input, folder: Path) -> Any:
    """Return what a text stands for; one that is not of the input's kind as it is: the service says what is allowed."""
    if not text.strip() and (kind["kind"] != "text" or not kind["required"]):
        return None
    if kind["kind"] == "picture":
        return folder / text
    if kind["kind"] == "text":
        return text
    if kind["kind"] == "category":
        said = text.strip()
        known = kind["values"] or []
        return next((one for one in known if said in {str(one), json.dumps(one)}), text)
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
