"""Progress output: a progress bar on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from training.recipe import Progress, Report

_BY_CLASS = ("recall_", "confusion_")


def figures(values: Mapping[str, float]) -> str:
    """Format metrics as `accuracy 0.9912  loss 0.02801`, without metrics of single classes (see `confusions`)."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items() if not name.startswith(_BY_CLASS))


def confusions(values: Mapping[str, float]) -> str:
    """Format the confusion matrix and the recall of each class from the metrics of `metrics.by_class`."""
    labels = [name.removeprefix("recall_") for name in values if name.startswith("recall_")]
    rows = []
    for row in labels:
        wrong = [f"{values.get(f'confusion_{row}_{column}', 0):.0f}" if row != column else "." for column in labels]
        rows.append(f"{row:>5} {''.join(f'{count:>5}' for count in wrong)}  {values[f'recall_{row}']:.4f}")
    head = f"wrong answers on test data, a row for each true label:\n      {''.join(f'{label:>5}' for label in labels)}"
    return "\n".join([f"{head}  recall", *rows]) if rows else ""


def say(text: str) -> None:
    """Print a line to standard output and flush it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def shown_progress() -> Iterator[Report]:
    """Report that prints the progress."""
    if sys.stdout.isatty():
        with _bar() as report:
            yield report
    else:
        yield lines(_while_written(say))


def _while_written(write: Callable[[str], None]) -> Callable[[str], None]:
    """Write lines until one cannot be written, as on a full disk: the run goes on, and its end reports the error.

    Raises BrokenPipeError: a reader that has seen enough ends the run.
    """
    fails = False

    def written(text: str) -> None:
        nonlocal fails
        if fails:
            return
        try:
            write(text)
        except BrokenPipeError:
            raise
        except OSError:
            fails = True

    return written


def lines(write: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> Report:
    """Report that writes a line for each tenth of the run, at least every five seconds."""
    tenth, last = 0, now()

    def report(progress: Progress) -> None:
        nonlocal tenth, last
        reached = 10 * progress.step // progress.steps
        if reached == tenth and now() - last < 5:
            return
        tenth, last = reached, now()
        place = f"epoch {progress.epoch}/{progress.epochs}  step {progress.step}/{progress.steps}"
        write(f"{place}  loss {progress.loss:.4g}  {figures(progress.metrics)}")

    return report


@contextmanager
def _bar() -> Iterator[Report]:
    from rich import progress as rich  # noqa: PLC0415

    columns = (
        rich.TextColumn("epoch {task.fields[epoch]}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns) as bar:
        task = bar.add_task("", total=None, epoch="", figures="")

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.steps,
                completed=progress.step,
                epoch=f"{progress.epoch}/{progress.epochs}",
                figures=f"loss {progress.loss:.4g}  {figures(progress.metrics)}",
            )

        yield report
