"""Command `data`: add, list, report and delete datasets of your own."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from service.client import tables
from service.client.clients import Client
from service.client.subcommands import added


def add_to(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Add the command to a parser's commands; `shared` has the options of every command."""
    text = "upload, list, report and delete datasets of your own"
    data = commands.add_parser("data", help=text, description=text, allow_abbrev=False)
    verbs = data.add_subparsers(metavar="VERB", title="verbs", required=True)

    verb = partial(added, verbs, shared)
    _add_options(verb(_add, "add model name file", "upload a file of examples, and make a dataset version of it"))
    verb(_list, "list model", "the dataset versions of a model")
    report = verb(
        _report, "report model dataset", "the refused rows and warnings of a dataset version, as NAME@VERSION"
    )
    report.add_argument("--cursor", help="the cursor of the page before, of --json")
    report.add_argument("--job", help="ingest job, if equal rows were sent again [the first]")
    delete = verb(_delete, "delete model dataset", "delete a dataset version, given as NAME@VERSION")
    delete.add_argument("--erase", action="store_true", help="also remove its files, for good")


def _add_options(add: argparse.ArgumentParser) -> None:
    add.add_argument("--parent", metavar="NAME", help="dataset version that grows, as field@3, or a bare name")
    text = "greatest share of refused rows, 0 to 1 [0]"
    add.add_argument("--allow-rejected", type=float, default=0.0, metavar="SHARE", help=text)
    add.add_argument("--format", default="auto", help="format of the file [auto: by its content]")
    add.add_argument("--label-column", metavar="COLUMN", help="column of labels or values [label or target]")
    add.add_argument("--split-column", metavar="COLUMN", help="column of train, validation, test [split]")
    add.add_argument("--group-column", metavar="COLUMN", help="rows of one group come into one split [group]")
    add.add_argument("--resume", metavar="UPLOAD", help="go on with an upload that broke off")
    add.add_argument("--no-wait", action="store_true", help="do not wait until the file has been read")


def _add(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    def begun(upload: str) -> None:
        sys.stderr.write(f"upload {upload}; if it breaks off, go on with --resume {upload}\n")

    job = client.datasets.upload(
        options.model,
        options.name,
        options.file,
        format=options.format,
        parent=options.parent,
        allow_rejected=options.allow_rejected,
        label_column=options.label_column,
        split_column=options.split_column,
        group_column=options.group_column,
        resume=options.resume,
        wait=not options.no_wait,
        progress=sys.stderr.isatty(),
        on_begin=begun,
    )
    tables.show(options, job, tables.job)
    if not options.json and job["report"] is not None:
        tables.report(job["report"])
    return 1 if job["state"] in {"failed", "cancelled"} else 0


def _list(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    return tables.show(options, client.datasets.list(options.model), tables.datasets)


def _report(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    found = client.datasets.report(options.model, options.dataset, cursor=options.cursor, job=options.job)
    return tables.show(options, found, tables.report)


def _delete(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    client.datasets.delete(options.model, options.dataset, erase=options.erase)
    done = {"deleted": options.dataset, "erased": options.erase}
    return tables.show(options, done, lambda found: tables.say(f"{found['deleted']} is deleted"))
