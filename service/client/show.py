"""Progress of a job on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.client.events import Event
from service.client.terminal import printable

Show = Callable[[Event], None]


@contextmanager
def bar(wanted: bool = True) -> Iterator[Show | None]:
    """Return a callback that shows each event of a job in a progress bar; None if no bar is wanted."""
    if not wanted:
        yield None
        return
    from rich import progress as rich  # noqa: PLC0415 - a tenth of a second, only needed for the bar
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("queued", total=None, figures="")

        def show(event: Event) -> None:
            if event.kind == "state":
                shown.update(task, description=event.data["state"])
                return
            if event.kind == "log":
                shown.console.print(printable(event.data["output"]), markup=False, highlight=False)
                return
            point = event.data
            reads = point["epoch"] == 0  # an ingest
            figures = {} if reads else {"loss": point["loss"], **point["metrics"]}
            shown.update(
                task,
                description="reading" if reads else f"epoch {point['epoch']}/{point['epochs']}",
                completed=point["step"],
                total=point["steps"],
                figures="  ".join(f"{name} {value:.4g}" for name, value in figures.items()),
            )

        yield show


@contextmanager
def upload_bar(wanted: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Return a callback that shows how many bytes of a file have been sent, of how many, if a bar is wanted."""
    if not wanted:
        yield lambda *_: None
        return
    from rich import progress as rich  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("upload"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("upload", total=None)
        yield lambda sent, size: shown.update(task, completed=sent, total=size)
