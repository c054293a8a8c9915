"""Text output of the command-line client."""

import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.client import terminal
from service.client.answers import Dataset, Job, Model, Node, Output, Promoted, Report, Version
from service.client.events import Event

T = TypeVar("T")
_GAP = 2  # spaces between columns
_WRAPPED = {"outcome", "summary", "error"}  # columns of text, which may take several lines
_UNNAMED = {"", "figures"}  # columns whose cells say what they are
_MOST_SHOWN = 6  # numbers of a list, or labels
_LEAST = 24  # columns of such text
_WRAP = partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)


def say(text: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show(options: Namespace, found: T, render: Callable[[T], None]) -> int:
    """Print a result, as text or, with --json, as JSON. Returns exit status 0."""
    if options.json:
        say(terminal.as_json(found))
    else:
        render(found)
    return 0


def models(found: Sequence[Model]) -> None:
    """Print models and their live versions."""
    rows = [
        (m["name"], m["live"], _loaded(m), m["backend"], m["device"], m["metric"], m["fault"] or m["summary"])
        for m in found
    ]
    table(("model", "live", "loaded", "backend", "device", "gate", "summary"), rows)


def _loaded(model: Model) -> int | str | None:
    """Return the version that answers, or how one is loaded."""
    return model["loaded"] or ("loading" if model.get("loading") else "on demand" if model.get("unloaded") else None)


def nodes(found: Sequence[Node]) -> None:
    """Print the nodes, one per row."""
    rows = [
        (
            n["address"],
            n["state"],
            _time(n["started_at"]),
            _time(n["seen_at"]),
            n["processes"],
            n["load"]["waiting"],
            n["load"]["requests_per_s"],
            ", ".join(f"{model} {version or 'none'}" for model, version in n["loaded"].items()),
            n["software"],
        )
        for n in found
    ]
    table(("node", "state", "started", "seen", "processes", "waiting", "per s", "loaded", "software"), rows)


def versions(found: Sequence[Version]) -> None:
    """Print the versions of one model."""
    rows = [
        (v["version"], "live" if v["live"] else "", _time(v["created_at"]), figures(v["metrics"]), v["sha256"][:12])
        for v in found
    ]
    table(("version", "", "made", "figures", "sha256"), rows)


def jobs(found: Sequence[Job]) -> None:
    """Print jobs, one per row."""
    rows = [
        (
            j["id"],
            j["model"],
            j["state"],
            _done(j),
            j["version"] or j.get("dataset"),
            _time(j["created_at"]),
            _outcome(j),
        )
        for j in found
    ]
    table(("job", "model", "state", "done", "version", "queued", "outcome"), rows)


def datasets(found: Sequence[Dataset]) -> None:
    """Print dataset versions, one per row."""
    rows = [
        (
            d["dataset"],
            _time(d["created_at"] or ""),
            *(d["examples"].get(split) for split in ("train", "validation", "test")),
            d["rejected"],
            d["parent"],
            ", ".join(map(str, d["trained"])),
            (d["sha256"] or "built in")[:12],
        )
        for d in found
    ]
    table(("dataset", "made", "train", "validation", "test", "refused", "parent", "trained", "sha256"), rows)


def report(found: Report | Mapping[str, Any]) -> None:
    """Print the report of a dataset's file: counts, warnings, and refused rows with their reasons."""
    say(f"{found['rows']} rows, {found['good']} good, {found['rejected']} refused")
    for text in found["warnings"]:
        say(f"warning: {text}")
    rows = [
        (row["row"], row["column"], row["value"], f"{reason['title']}: {row['detail']}")
        for reason in found["by_reason"]
        for row in reason["first"]
    ]
    if rows:
        table(("row", "column", "value", "error"), rows)
    if len(rows) < found["rejected"]:
        say(f"and {found['rejected'] - len(rows)} more refused rows")


def predictions(names: Sequence[str], found: Sequence[Mapping[str, Any]], outputs: Sequence[Output] = ()) -> None:
    """Print one row per sample: the fields of a prediction that are single numbers, and named outputs of any shape."""
    named = {output["name"]: output["labels"] for output in outputs}
    keys = dict.fromkeys(
        key for item in found for key, value in item.items() if key in named or not isinstance(value, list)
    )
    rows = [
        (name, *(_cell(item.get(key, ""), named.get(key)) for key in keys))
        for name, item in zip(names, found, strict=True)
    ]
    table(("sample", *keys), rows)


def promoted(done: Promoted) -> None:
    """Print a promotion."""
    before = f"version {done['previous']}" if done["previous"] else "none"
    say(f"{done['model']}: version {done['live']} is live, {before} was before")
    if late := done.get("waiting_for"):
        say(f"not yet everywhere: {', '.join(late)} (torchloop nodes lists what each node has loaded)")


def job(found: Job) -> None:
    """Print the outcome of a job in one line, and a line for old and for new examples if the gate compared both."""
    made = f"version {found['version']}" if found["version"] else ""
    if found.get("kind") == "ingest" and found["state"] == "succeeded":
        made = f"dataset {found['dataset']}"
    of_it = " ".join(filter(None, [found["state"], made]))
    say(": ".join(filter(None, [f"job {found['id']} of {found['model']}", of_it, _outcome(found)])))
    for name in ("old_rows", "new_rows"):
        if part := (found["gate"] or {}).get(name):
            say(f"{name.replace('_', ' ')}: {_part(part)}")


def _part(part: Mapping[str, Any]) -> str:
    """Describe the comparison on the old or the new examples."""
    better = f"the candidate is better on {part['candidate_right']}, live on {part['live_right']}"
    counts = f"{part['rows']} examples, {part['differ']} answered differently, {better}"
    return f"{counts}; gain {part['gain']:.4g}, p = {part['p_value']:.2g}"


def event(told: Event) -> None:
    """Print an event of a job or a trial in one line."""
    if told.kind == "fault" or "stage" in told.data:
        say(f"{told.id}  {_of_trial(told)}")
        return
    if told.kind == "state":
        reason = told.data.get("reason")
        say(f"{told.id}  {told.data['state']}{f': {terminal.printable(reason)}' if reason else ''}")
        return
    if told.kind == "log":
        say(textwrap.indent(terminal.printable(told.data["output"]), f"{told.id}  "))
        return
    point = told.data
    if point["epoch"] == 0:  # an ingest
        say(f"{told.id}  {point['step']}/{point['steps']} read")
        return
    place = f"epoch {point['epoch']}/{point['epochs']}  step {point['step']}/{point['steps']}"
    say(f"{told.id}  {place}  {figures({'loss': point['loss'], **point['metrics']})}")


def _of_trial(told: Event) -> str:
    """`canary, stage 2: stage 1 of 3 is fulfilled`, or the fault of the candidate."""
    data = told.data
    if told.kind == "fault":
        return f"fault, {data['kind']}: {data['detail']}"
    return f"{data['state'].replace('_', ' ')}, stage {data['stage'] + 1}: {data['reason']}"


def figures(values: Mapping[str, float]) -> str:
    """`accuracy 0.9912  loss 0.02801`."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table. Its first column and its figures are never cut or broken.

    In a file or pipe each row is one line. A terminal that is too narrow gets a paragraph for each row instead.
    """
    texts = [["" if cell is None else " ".join(str(cell).split("\n")) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *texts, strict=True)]
    if not sys.stdout.isatty():
        _print_table(columns, texts, sum(widths) + _GAP * len(widths))
        return
    terminal = Console().width
    least = [min(width, _LEAST) if name in _WRAPPED else width for name, width in zip(columns, widths, strict=True)]
    if sum(least) + _GAP * (len(least) - 1) <= terminal:
        _print_table(columns, texts, terminal)
        return
    for row in texts:
        say("\n".join(_paragraph(columns, row, terminal)))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column not in _WRAPPED, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=width, soft_wrap=False).print(table)


def _paragraph(columns: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Return a row as lines: the first cell alone, then `name value` pairs, indented, as many on a line as fit."""
    lines = [f"{columns[0]} {row[0]}" if cell_len(f"{columns[0]} {row[0]}") <= width else row[0]]
    for name, cell in [pair for pair in zip(columns[1:], row[1:], strict=True) if pair[1]]:
        named = cell if name in _UNNAMED else f"{name} {cell}"
        for part in [named] if name in _WRAPPED else named.split("  "):
            joined = f"{lines[-1]}  {part}"
            if len(lines) > 1 and cell_len(joined) <= width:
                lines[-1] = joined
            else:
                lines += _WRAP(part, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _cell(value: Any, labels: Sequence[str] | None = None) -> str:
    if isinstance(value, Mapping):  # the error of one sample
        return f"{value['title']}: {value['detail']}"
    if isinstance(value, list):
        return _list(value, labels)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _list(values: list[Any], labels: Sequence[str] | None) -> str:
    """Return numbers, with their labels if they have any; of long and nested lists the sizes."""
    if labels and len(labels) == len(values) and not isinstance(values[0], list):
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:_MOST_SHOWN]
        return ", ".join(f"{labels[place]} {_cell(values[place])}" for place in order)
    if len(values) <= _MOST_SHOWN and not any(isinstance(value, list) for value in values):
        return ", ".join(map(_cell, values))
    sizes: list[str] = []
    inner: Any = values
    while isinstance(inner, list):
        sizes.append(str(len(inner)))
        inner = inner[0] if inner else None
    return f"{' x '.join(sizes)} numbers (--json prints them)"


def _time(text: str) -> str:
    """`2026-01-31T12:00:00.000Z` -> `2026-01-31 12:00:00`."""
    return text[:19].replace("T", " ")


def _done(found: Job) -> str:
    point = found["progress"]
    return f"{100 * point['step'] // max(1, point['steps'])} %" if point else ""


def _outcome(found: Job) -> str:
    if found["error"]:
        return found["error"]["detail"]
    if waits_for := found.get("waits_for"):  # an older service does not say it
        return f"waits for {waits_for}"
    return f"{found['gate']['decision']}, {found['gate']['reason']}" if found["gate"] else ""
