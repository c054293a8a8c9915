"""Own data on the command line: options, and the version that is made of a file or folder for one run."""

from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.catalog import specs
from models.checkpoints.files import unwritable
from models.messages import DatasetFile, DatasetOptions, DatasetSummary, Ingest
from training.datasets.errors import DatasetError
from training.datasets.orders import ingested
from training.datasets.readers.detect import FORMATS
from training.recipe import Recipe, TrainingError
from training.report.console import say

_SHOWN = 3  # refused rows of each reason


def add_options(group: _ArgumentGroup) -> None:
    """Add the options of own data."""
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


@contextmanager
def dataset_file(
    options: Namespace, name: str, recipe: Recipe[Any], check: Callable[[], None]
) -> Iterator[DatasetFile | None]:
    """Make a version of --dataset-file in a temporary folder, print its counts, and remove it at the end.

    None if there is no such option. Raises TrainingError with the refused rows.
    """
    if options.dataset_file is None:
        yield None
        return
    with TemporaryDirectory(prefix="torchloop-") as store:
        order = Ingest(
            model=name,
            store=Path(store),
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


def _say_summary(file: str, summary: DatasetSummary) -> None:
    counts = ", ".join(f"{name} {count:,}" for name, count in summary.examples.items())
    say(
        f"{file}: {summary.rows:,} rows, {summary.rejected:,} refused, {summary.duplicates:,} duplicates; "
        f"examples: {counts}"
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
