"""Datasets of your own: `client.datasets.upload("mnist", "digits", "digits.zip")`, and calls of dataset versions."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from service.client import dataset_calls
from service.client.answers import Job
from service.client.dataset_calls import NewVersion, Sent, Step, uploading
from service.client.errors import BadArgument, TorchloopError
from service.client.method import Asynchronous, Synchronous, method
from service.client.show import bar, upload_bar


class _Calls:
    list = method(dataset_calls.datasets)
    get = method(dataset_calls.dataset)
    report = method(dataset_calls.report)
    delete = method(dataset_calls.delete)
    state = method(dataset_calls.state)


class Datasets(_Calls, Synchronous):
    """The calls of datasets, of a Client."""

    def __init__(
        self, execute: Callable[[Any], Any], follow: Callable[..., Job], wait: Callable[[float], Any], retries: int
    ) -> None:
        self.execute = execute
        self._follow = follow
        self._wait = wait
        self._retries = retries

    def upload(
        self,
        model: str,
        name: str,
        path: str | os.PathLike[str],
        *,
        format: str = "auto",  # noqa: A002 - its name in the service
        parent: str | None = None,
        allow_rejected: float = 0.0,
        label_column: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        resume: str | None = None,
        wait: bool = False,
        progress: bool = False,
        on_progress: Sent | None = None,
        on_begin: Callable[[str], None] | None = None,
    ) -> Job:
        """Send a file in parts, and queue the job that makes a dataset version of it; with `wait`, return that job when
        it has ended.

        `parent`: the version that grows, such as "field@3". `allow_rejected`: the greatest share of refused rows.
        `resume`: the id of an upload that broke off; the error of that upload names it. `progress` shows a progress
        bar; `on_progress` is called with the bytes sent and the bytes in all, `on_begin` with the id of the upload.
        """
        options = {"label_column": label_column, "split_column": split_column, "group_column": group_column}
        new = _new(model, name, path, format, options, parent, allow_rejected)
        with upload_bar(progress) as shown:
            job = self._done(uploading(new, resume, self._retries, _both(shown, on_progress), on_begin))
        if not wait:
            return job
        with bar(progress) as show:
            return self._follow(job["id"], show)

    def _done(self, steps: Generator[Step, Any, Job]) -> Job:
        """Take the steps of an upload. Returns its job."""
        answer: Any = None
        error: TorchloopError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                job: Job = end.value
                return job
            answer = error = None
            try:
                if callable(step):
                    answer = step()
                else:
                    answer = self._wait(step) if isinstance(step, float) else self.execute(step)
            except TorchloopError as err:
                error = err


class AsyncDatasets(_Calls, Asynchronous):
    """The calls of datasets, of an AsyncClient: as those of Datasets, and awaitable."""

    def __init__(
        self,
        execute: Callable[[Any], Awaitable[Any]],
        follow: Callable[..., Awaitable[Job]],
        wait: Callable[[float], Awaitable[Any]],
        retries: int,
    ) -> None:
        self.execute = execute
        self._follow = follow
        self._wait = wait
        self._retries = retries

    async def upload(
        self,
        model: str,
        name: str,
        path: str | os.PathLike[str],
        *,
        format: str = "auto",  # noqa: A002
        parent: str | None = None,
        allow_rejected: float = 0.0,
        label_column: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        resume: str | None = None,
        wait: bool = False,
        progress: bool = False,
        on_progress: Sent | None = None,
        on_begin: Callable[[str], None] | None = None,
    ) -> Job:
        """As Datasets.upload."""
        options = {"label_column": label_column, "split_column": split_column, "group_column": group_column}
        new = _new(model, name, path, format, options, parent, allow_rejected)
        with upload_bar(progress) as shown:
            job = await self._done(uploading(new, resume, self._retries, _both(shown, on_progress), on_begin))
        if not wait:
            return job
        with bar(progress) as show:
            return await self._follow(job["id"], show)

    async def _done(self, steps: Generator[Step, Any, Job]) -> Job:
        answer: Any = None
        error: TorchloopError | None = None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as end:
                job: Job = end.value
                return job
            answer = error = None
            try:
                if callable(step):
                    answer = await asyncio.to_thread(step)
                else:
                    answer = await (self._wait(step) if isinstance(step, float) else self.execute(step))
            except TorchloopError as err:
                error = err


def _new(
    model: str,
    name: str,
    path: str | os.PathLike[str],
    form: str,
    options: dict[str, str | None],
    parent: str | None,
    allow_rejected: float,
) -> NewVersion:
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadArgument(
            f"{file.name} is not a file: name a file of examples; pack a folder of pictures as zip or tar"
        )
    return NewVersion(
        model=model,
        name=name,
        file=file,
        format=form,
        options={key: value for key, value in options.items() if value is not None},
        parent=parent,
        allow_rejected=allow_rejected,
    )


def _both(shown: Sent, on_progress: Sent | None) -> Sent:
    def sent(done: int, size: int) -> None:
        shown(done, size)
        if on_progress is not None:
            on_progress(done, size)

    return sent
