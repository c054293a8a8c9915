"""Own data on the command line: a version in the store, or one that is made of a file or folder for one run."""

import argparse
import json
import os
import shlex
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.catalog import NAME, specs
from models.checkpoints.files import unwritable
from models.checkpoints.location import DatasetFile, StoreLocation
from models.messages import DatasetOptions, DatasetSummary, Ingest
from models.project import of_any_folder
from training.datasets.errors import DatasetError
from training.datasets.orders import ingested
from training.datasets.readers.detect import FORMATS
from training.datasets.splits import SPLITS
from training.datasets.version import read_manifest
from training.flags import properties
from training.recipe import Hyperparameters, Recipe, TrainingError
from training.report.console import say

_OPTION = "dataset"
_SHOWN = 3  # refused rows of each reason


def add_options(group: _ArgumentGroup, config: type[Hyperparameters] | None = None) -> None:
    """Add the options of own data. A `config` with a hyperparameter `dataset` has that flag already."""
    if config is None or _OPTION not in config.model_fields:
        text = "dataset version in the store, as field@4, or a bare name for its newest"
        group.add_argument("--dataset", metavar="NAME", default=argparse.SUPPRESS, help=text)
    group.add_argument(
        "--dataset-file",
        type=_file,
        metavar="FILE",
        help="your data instead of the built-in: CSV, JSON Lines, .npz, IDX pair, Parquet, zip, tar or folder of "
        "pictures; see docs/datasets.md",
    )
    group.add_argument("--dataset-format", choices=FORMATS, default="auto", help="format of the file (default auto)")
    group.add_argument("--label-column", metavar="NAME", help="column of labels or values (default label or target)")
    group.add_argument("--split-column", metavar="NAME", help="column of train, validation, test (default split)")
    group.add_argument("--group-column", metavar="NAME", help="rows of one group are in one split (default group)")
    group.add_argument(
        "--allow-rejected", type=_share, default=0.0, metavar="SHARE", help="greatest share of refused rows (default 0)"
    )


def take_reference(options: Namespace, recipe: Recipe[Any]) -> None:
    """Move the value of --dataset to `options.stored` if it names a version in the store, and no data of the recipe."""
    options.stored = None
    given = getattr(options, _OPTION, None)
    if given is None or _is_of_recipe(given, recipe.config):
        return
    if options.dataset_file is not None:
        options.fail("--dataset and --dataset-file: give one of the two")
    options.stored = given
    delattr(options, _OPTION)


def _is_of_recipe(given: object, config: type[Hyperparameters]) -> bool:
    """Return whether a value is one of the hyperparameter `dataset`, or can be no version in the store."""
    field = properties(config).get(_OPTION)
    if field is None:
        return False
    if not isinstance(given, str):
        return True
    name, at, number = given.partition("@")
    is_reference = NAME.fullmatch(name) is not None and (number.isdecimal() if at else True)
    return not is_reference or (given in field["enum"] if "enum" in field else not at)


@contextmanager
def dataset_file(
    options: Namespace, name: str, recipe: Recipe[Any], check: Callable[[], None]
) -> Iterator[DatasetFile | None]:
    """Open the version in the store that --dataset names, or make one of --dataset-file in a temporary folder.

    Prints its counts. The folder is removed at the end. None without these options, see `take_reference`. Raises
    TrainingError with the refused rows.
    """
    if options.stored is not None:
        yield _stored(name, options.stored, recipe, options.store)
        return
    if options.dataset_file is None:
        yield None
        return
    with TemporaryDirectory(prefix="torchloop-") as store:
        order = Ingest(
            model=name,
            store=StoreLocation(Path(store)),
            job="command-line",
            attempt=1,
            source=options.dataset_file,
            data=Path(store),
            format=options.dataset_format,
            options=DatasetOptions(
                label_column=options.label_column,
                split_column=options.split_column,
                group_column=options.group_column,
            ),
            allow_rejected=options.allow_rejected,
        )
        file = options.dataset_file.name
        try:
            done = ingested(order, specs()[name], recipe, lambda *_: check(), keeps_file=False)
        except DatasetError as err:
            if err.summary:
                _say_summary(file, err.summary)
            raise TrainingError(f"{file}: {err.title}: {err.detail}") from err
        except OSError as err:
            raise TrainingError(f"{file}: {unwritable(err)}") from err
        _say_summary(file, done.summary)
        yield DatasetFile(label=file, sha256=done.sha256, folder=Path(store) / done.folder)


def _stored(name: str, reference: str, recipe: Recipe[Any], store: Path) -> DatasetFile:
    """Ask the service's code in a subprocess, because training must not import it. Raises TrainingError."""
    command = [sys.executable, "-m", "service.dataset", name, reference]
    environ = of_any_folder({**os.environ, "TORCHLOOP_STORE": str(store)})
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the store could not be read"]
        own = properties(recipe.config).get(_OPTION, {}).get("enum", ())
        others = f"; the data of the recipe is {' or '.join(own)}" if own else ""
        raise TrainingError(f"--dataset {reference}: {lines[-1].removeprefix('torchloop: ')}{others}")
    found = json.loads(done.stdout)
    location = StoreLocation(**{**found["store"], "root": Path(found["store"]["root"])})
    file = DatasetFile(label=found["label"], sha256=found["sha256"], folder=Path(found["folder"]), store=location)
    try:
        say(f"{file.label}: examples: {_counts(read_manifest(file.folder).examples)}")
    except DatasetError as err:
        raise TrainingError(f"{file.label}: {err.detail}") from err
    return file


def own_data(options: Namespace, file: DatasetFile | None) -> str:
    """Return the options of own data as part of a command line, without folders."""
    if file is None:
        return ""
    if options.stored is not None:
        return f" --dataset {file.label}"
    words = ["--dataset-file", options.dataset_file.name]
    for option in ("label_column", "split_column", "group_column"):
        if (chosen := getattr(options, option)) is not None:
            words += [f"--{option.replace('_', '-')}", chosen]
    return " " + shlex.join(words)


def _counts(examples: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {examples[name]:,}" for name in SPLITS)


def _say_summary(file: str, summary: DatasetSummary) -> None:
    say(
        f"{file}: {summary.rows:,} rows, {summary.rejected:,} refused, {summary.duplicates:,} duplicates; "
        f"examples: {_counts(summary.examples)}"
    )
    for reason in summary.by_reason:
        for row in reason.first[:_SHOWN]:
            place = ", ".join(part for part in (row.column, row.value) if part)
            say(f"row {row.row}{f' ({place})' if place else ''}: {reason.title}: {row.detail}")
        if reason.rows > _SHOWN:
            say(f"and {reason.rows - _SHOWN:,} more rows: {reason.title}")
    for warning in summary.warnings:
        say(f"warning: {warning}")


def _file(word: str) -> Path:
    path = Path(word).expanduser()
    if not path.exists():
        raise ArgumentTypeError(f"{word} does not exist")
    return path.resolve()


def _share(word: str) -> float:
    try:
        share = float(word)
    except ValueError as err:
        raise ArgumentTypeError(f"{word} is no number from 0 to 1") from err
    if not 0 <= share <= 1:
        raise ArgumentTypeError(f"{word} is not from 0 to 1")
    return share
