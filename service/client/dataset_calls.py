"""The calls of datasets, and the steps of an upload in parts. Nothing here sends anything."""

import hashlib
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from service.client import answers, files
from service.client.call import OCTETS, Call, Following, Step, Steps, get, json_body, list_under, object_with, path
from service.client.errors import (
    BadArgument,
    Conflict,
    Late,
    NotTorchloop,
    Overloaded,
    ServiceFailed,
    Unavailable,
    Unreachable,
)
from service.client.show import bar, upload_bar

_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 8.0
_RESTART_S = 60.0  # the service starts again, and loads its models
_MOST_PART_BYTES = 67_108_864  # a part is held in memory
_FINISH_S = 300.0  # the service reads the whole file
_PASSING = (
    Conflict,
    Late,
    Overloaded,
    ServiceFailed,
    Unavailable,
    Unreachable,
)  # after these the state says where to continue
Sent = Callable[[int, int], None]  # bytes sent, bytes in all


def datasets(model: str) -> Call[list[answers.Dataset]]:
    """The dataset versions of a model, by name and number."""
    return get(path("models", model, "datasets"), list_under("datasets"))


def dataset(model: str, reference: str) -> Call[answers.Dataset]:
    """One dataset version, such as "field@4"."""
    return get(_version(model, reference), object_with("dataset"))


def report(model: str, reference: str, *, cursor: str | None = None, job: str | None = None) -> Call[answers.Report]:
    """The report of a version's file: counts by reason, and a page of the refused rows.

    `job`: an ingest job, if equal rows were sent several times; by default the first one.
    """
    return get(f"{_version(model, reference)}/report", object_with("by_reason"), cursor=cursor, job=job)


def delete(model: str, reference: str, *, erase: bool = False) -> Call[None]:
    """Delete a dataset version; with `erase`, also its files. Raises Conflict while it is used."""
    return Call(
        method="DELETE",
        path=_version(model, reference),
        read=_deleted,
        repeatable=False,
        arguments={"params": {"erase": "true"} if erase else {}},
    )


def state(upload: str) -> Call[answers.UploadState]:
    """How much of an upload has arrived."""
    return get(path("uploads", upload), object_with("received", "bytes", "part_bytes"))


def upload(
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
) -> Steps[answers.Job]:
    """Send a file in parts, and queue the job that makes a dataset version of it; with `wait`, return that job when it
    has ended.

    `parent`: the version that grows, such as "field@3". `allow_rejected`: the greatest share of refused rows.
    `resume`: the id of an upload that broke off; the error of that upload names it. `progress` shows a progress bar;
    `on_progress` is called with the bytes sent and the bytes in all, `on_begin` with the id of the upload.
    """
    file = files.path(path)
    if not files.is_regular(file):
        raise BadArgument(
            f"{file.name} is not a file: name a file of examples; pack a folder of pictures as zip or tar"
        )
    options = {"label_column": label_column, "split_column": split_column, "group_column": group_column}
    new = NewVersion(
        model=model,
        name=name,
        file=file,
        format=format,
        options={key: value for key, value in options.items() if value is not None},
        parent=parent,
        allow_rejected=allow_rejected,
    )

    def begin(retries: int) -> Generator[Step, Any, answers.Job]:
        with upload_bar(progress) as shown:
            job = yield from uploading(new, resume, retries, _both(shown, on_progress), on_begin)
        if wait:
            with bar(progress) as show:
                job = yield Following(job["id"], show)
        return job

    return Steps(begin)


def _both(shown: Sent, on_progress: Sent | None) -> Sent:
    def sent(done: int, size: int) -> None:
        shown(done, size)
        if on_progress is not None:
            on_progress(done, size)

    return sent


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A file that is to become a dataset version."""

    model: str
    name: str
    file: Path
    format: str
    options: dict[str, str]
    parent: str | None
    allow_rejected: float


def uploading(
    new: NewVersion, resume: str | None, retries: int, sent: Sent, begun: Callable[[str], None] | None = None
) -> Generator[Step, Any, answers.Job]:
    """Yield the requests and pauses of an upload, which get the answers back, or the error thrown. Returns the job.

    A part that fails is sent again from where the service says, `retries` times in a row at most. The error then
    says how to resume the upload.
    """
    size = _size(new.file)
    sha256: str = yield partial(_digest, new.file)
    found: answers.UploadState = yield state(resume) if resume else _begin(new, size, sha256)
    if found["bytes"] != size:
        raise BadArgument(f"upload {found['upload']} is of a file of {found['bytes']} bytes; this one has {size}")
    if begun is not None:
        begun(found["upload"])
    try:
        yield from _parts(new.file, found, retries, sent)
        job: answers.Job = yield _finish(new, found["upload"])
    except _PASSING as err:
        err.args = (f"{err}. To go on, upload the file again and resume {found['upload']}",)
        raise
    return job


def _parts(file: Path, found: answers.UploadState, retries: int, sent: Sent) -> Generator[Step, Any, None]:
    received, failures = found["received"], 0
    while received < found["bytes"]:
        sent(received, found["bytes"])
        most = min(max(found["part_bytes"], 1), _MOST_PART_BYTES, found["bytes"] - received)
        content: bytes = yield partial(_read, file, received, most)
        try:
            arrived = (yield _part(found["upload"], received, content))["received"]
            if type(arrived) is not int or arrived <= received:  # would go on without an end
                raise NotTorchloop(f"a part was taken, but {arrived!r} bytes have arrived: check the URL")
            received, failures = arrived, 0
        except _PASSING:
            yield _PAUSE_S * (failures + 1)
            now = yield from _asked_again(found["upload"], _RESTART_S if retries else 0.0)
            failures = 0 if now["received"] > received else failures + 1
            if failures > retries:
                raise
            received = now["received"]
    sent(received, found["bytes"])


def _asked_again(upload: str, limit_s: float) -> Generator[Step, Any, answers.UploadState]:
    """Ask how much has arrived, for `limit_s` seconds if the service does not answer: it may be restarting."""
    pause_s = waited_s = _PAUSE_S
    while True:
        try:
            found: answers.UploadState = yield state(upload)
        except _PASSING:
            if waited_s >= limit_s:
                raise
        else:
            return found
        yield pause_s
        waited_s += pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _begin(new: NewVersion, size: int, sha256: str) -> Call[answers.UploadState]:
    order = {"bytes": size, "sha256": sha256, "format": new.format, "options": new.options}
    return Call(
        method="POST",
        path=path("models", new.model, "datasets", new.name, "uploads"),
        read=object_with("upload", "received", "bytes", "part_bytes"),
        repeatable=False,
        arguments=json_body(order, "upload"),
    )


def _part(upload: str, offset: int, content: bytes) -> Call[dict[str, int]]:
    return Call(
        method="PUT",
        path=path("uploads", upload),
        read=object_with("received"),
        repeatable=False,
        arguments={"params": {"offset": offset}, "content": content, "headers": {"Content-Type": OCTETS}},
    )


def _finish(new: NewVersion, upload: str) -> Call[answers.Job]:
    order = {"parent": new.parent, "allow_rejected": new.allow_rejected}
    return Call(
        method="POST",
        path=path("uploads", upload, "finish"),
        read=object_with("id", "state"),
        repeatable=True,
        arguments=json_body(order, "upload"),
        timeout_s=_FINISH_S,
    )


def _version(model: str, reference: str) -> str:
    name, _, number = reference.partition("@") if isinstance(reference, str) else ("", "", "")
    if not name or not number.isdecimal():
        raise BadArgument(f'{str(reference)!r} is not a dataset version: write it as name@version, such as "field@4"')
    return path("models", model, "datasets", name, "versions", number)


def _size(file: Path) -> int:
    """Return the size of a file. Raises BadArgument, also if it is empty."""
    try:
        size = file.stat().st_size
    except OSError as err:
        raise _unreadable(file, err) from err
    if not size:
        raise BadArgument(f"{file.name} is empty: 0 bytes")
    return size


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as err:
        raise _unreadable(file, err) from err


def _read(file: Path, offset: int, most: int) -> bytes:
    """Return at most `most` bytes from `offset` on. Raises BadArgument, also if there are none."""
    try:
        with file.open("rb") as content:
            content.seek(offset)
            part = content.read(most)
    except OSError as err:
        raise _unreadable(file, err) from err
    if not part:
        raise BadArgument(f"{file.name} has become shorter while it was sent: upload it again")
    return part


def _unreadable(file: Path, err: OSError) -> BadArgument:
    return BadArgument(f"{file.name} cannot be read ({err.strerror})")


def _deleted(response: httpx.Response) -> None:
    """Read the answer of a deletion. Raises ValueError for another one, such as the page of a proxy."""
    if response.status_code != 204:
        raise ValueError("not the answer of a deletion")
