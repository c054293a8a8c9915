"""Command `events`: print the feed of all changes."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from service.client import tables, terminal
from service.client.clients import Client
from service.client.events import Entry

TEXT = "print all changes: of jobs, versions, trials, datasets, drift and settings; a line each"
_TEXTS = ("reason", "detail", "due")  # words for people, which come last
_NOT_SHOWN = {"state", "sha256", "dataset_sha256", "job_kind", "since", "until", "error", "gate", *_TEXTS}


def add_options(events: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = "id of the last change that is known: later ones only [0; with --follow, the newest one]"
    events.add_argument("--after", type=_id, metavar="ID", help=text)
    events.add_argument("--model", help="changes of this model only")
    text = "of this kind only: job.succeeded, or 'job.*' for all of jobs; may be repeated"
    events.add_argument("--kind", action="append", metavar="KIND", help=text)
    events.add_argument("--follow", action="store_true", help="go on with each change that comes, until interrupted")


def run(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    """Run the command."""
    found = client.events(model=options.model, kind=options.kind, after=options.after, follow=options.follow)
    for entry in found:
        tables.say(json.dumps(_as_json(entry)) if options.json else _line(entry))
    return 0


def _id(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) <= 17):
        raise argparse.ArgumentTypeError(f"{word!r} is not the id of a change: a number, as the first column has")
    return int(word)


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "model": entry.model,
        "at": entry.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": dict(entry.data),
    }


def _line(entry: Entry) -> str:
    """`17  2026-01-31 12:00:00Z  version.promoted  mnist  version 3  by job 4f2a...  better by 0.2%`."""
    place = f"{entry.id}  {entry.at:%Y-%m-%d %H:%M:%S}Z  {entry.kind}  {entry.model}"
    parts = [f"{name} {_value(value)}" for name, value in entry.data.items() if _is_shown(name, value)]
    error = entry.data.get("error")
    words = [str(entry.data[name]) for name in _TEXTS if entry.data.get(name)]
    words += [error["detail"]] if isinstance(error, Mapping) and "detail" in error else []
    line = "  ".join([place, *parts, *words])
    return terminal.printable(" ".join(line.splitlines()))


def _is_shown(name: str, value: Any) -> bool:
    return name not in _NOT_SHOWN and value is not None and value not in ({}, [])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(one.get("name", one)) if isinstance(one, Mapping) else str(one) for one in value)
    return json.dumps(value) if isinstance(value, Mapping) else str(value)
