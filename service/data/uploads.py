"""Files that arrive in parts: begun, appended to in order, finished, or removed when they are abandoned.

No part needs the database to be written. The received bytes are kept as parts: appended to a file in
the store folder (see `file_parts`), or objects of an object store (see `object_parts`).
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, delete, func, select, update

from models.errors import shown
from service.data.file_parts import FileParts, Part
from service.data.object_parts import ObjectParts
from service.data.parts import PART_BYTES, Parts, Receiving
from service.errors import Conflict, Invalid, LimitReached, NotFound, StoreUnavailable, TooLarge
from service.store.database import Store
from service.store.tables import uploads

__all__ = ["EXPIRY_S", "MOST_OPEN", "PART_BYTES", "Upload", "Uploads"]
EXPIRY_S = 86_400.0  # after the last part
MOST_OPEN = 256  # uploads that have begun and are not finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One row. `bytes` is the whole size. `sha256` is that which the client has announced."""

    id: str
    model: str
    name: str
    bytes: int
    sha256: str | None
    format: str
    options: Mapping[str, str | None]
    created_at: float
    job: str | None


class Uploads:
    """The table of uploads, and their files in the store."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._storage = store.storage
        self.max_bytes = max_bytes

    def begin(
        self,
        model: str,
        name: str,
        size: int,
        *,
        sha256: str | None,
        form: str,
        options: Mapping[str, str | None],
        now: float,
    ) -> Upload:
        """Add an upload of `size` bytes with an empty file; those that have expired are removed.

        Raises TooLarge, and LimitReached if there are MOST_OPEN uploads.
        """
        self.require_size(size)
        self.sweep(now)
        upload = Upload(
            id=uuid4().hex,
            model=model,
            name=name,
            bytes=size,
            sha256=sha256,
            format=form,
            options=dict(options),
            created_at=now,
            job=None,
        )
        with self._store.files():
            self._parts(upload.id).begin()
        try:
            self._add(upload)
        except (LimitReached, StoreUnavailable):
            self.forget_parts(upload)
            raise
        return upload

    def _add(self, upload: Upload) -> None:
        with self._store.write() as connection:
            if (connection.scalar(select(func.count()).where(uploads.c.job.is_(None))) or 0) >= MOST_OPEN:
                raise LimitReached(
                    f"{MOST_OPEN} uploads are open: finish some of them, or remove them with DELETE /uploads/ID",
                    retry_after_s=60,
                )
            row = {field.name: getattr(upload, field.name) for field in fields(Upload)}
            connection.execute(uploads.insert().values(row))

    def require_size(self, size: int) -> None:
        """Raise TooLarge for a file above the limit."""
        if size > self.max_bytes:
            raise TooLarge(
                f"the file has {size} bytes, and a dataset file may have {self.max_bytes}: compress it, split it and "
                "let the dataset grow by its parts, or raise TORCHLOOP_MAX_DATASET_BYTES"
            )

    def get(self, upload_id: str) -> Upload:
        """Return one upload. Raises NotFound."""
        with self._store.read() as connection:
            return _required(connection, upload_id)

    def received(self, upload: Upload) -> int:
        """Return how many bytes have arrived. Raises NotFound if the file was removed."""
        if upload.job is not None:
            return upload.bytes
        try:
            return self._parts(upload.id).received()
        except FileNotFoundError as err:
            raise _unknown(upload.id) from err

    def expires_at(self, upload: Upload) -> float:
        """Return when an upload is removed if no other part comes, in seconds since 1970."""
        try:
            return self._parts(upload.id).touched_at() + EXPIRY_S
        except FileNotFoundError:
            return upload.created_at + EXPIRY_S

    @contextmanager
    def part(self, upload: Upload, offset: int) -> Iterator[Receiving]:
        """Open the file to append a part that begins at `offset`.

        Raises Conflict, with the right offset, if it is another one, if another part is being received, or if the
        upload is finished; NotFound if it was removed.
        """
        if upload.job is not None:
            raise Conflict(f"upload {upload.id} is finished: see GET /jobs/{upload.job}")
        with self._found(upload), self._parts(upload.id).receiving(offset, upload.bytes) as part:
            yield part

    @contextmanager
    def whole(self) -> Iterator[Part]:
        """Open a file for an upload in one request; it is removed at the end, unless `keep_original` has moved it."""
        path = self._storage.incoming(uuid4().hex)
        with self._store.files():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    yield Part(file, self.max_bytes)
                finally:
                    path.unlink(missing_ok=True)

    def digest(self, upload: Upload) -> str:
        """Return the SHA-256 of the whole file. Raises Conflict if parts are missing, Invalid if it is not the one that
        was announced.
        """
        with self._found(upload), self._parts(upload.id).gathered(upload.bytes) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if upload.sha256 is not None and found != upload.sha256:
            raise Invalid(
                f"the SHA-256 of what has arrived is {found}, not {upload.sha256} as announced: remove the upload with "
                f"DELETE /uploads/{upload.id}, and send the file again"
            )
        return found

    def hand_over(self, connection: Connection, upload: Upload, job_id: str, sha256: str) -> None:
        """Mark an upload as finished, and keep its file among the originals of its model. Raises NotFound."""
        known = (uploads.c.id == upload.id) & uploads.c.job.is_(None)
        if connection.execute(update(uploads).where(known).values(job=job_id)).rowcount != 1:
            raise _unknown(upload.id)
        self.keep_original(self._storage.incoming(upload.id), upload.model, sha256)

    def offer(self, path: Path, model: str, sha256: str) -> None:
        """Give the object store, if there is one, a file before the transaction of its job, which should be short."""
        if self._storage.copies is not None:
            with self._store.files():
                self._storage.publish(self._placed(path, model, sha256))

    def keep_original(self, path: Path, model: str, sha256: str) -> None:
        """Keep a file among the originals of a model, in the transaction of its job. Raises NotFound if it was removed.

        A file that was offered to an object store is there already; again, if an equal one was removed since then.
        """
        if self._storage.copies is None:
            self._placed(path, model, sha256)
        elif not self._storage.exists(self._storage.original(model, sha256)):
            self._storage.publish(self._storage.original(model, sha256))

    def _placed(self, path: Path, model: str, sha256: str) -> Path:
        """Give a file a place among the originals.

        It keeps its old place, too, if the file system has hard links: the transaction may still fail.
        """
        target = self._storage.original(model, sha256)
        linked = target.with_name(f".{sha256}-{path.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            linked.unlink(missing_ok=True)
            with suppress(OSError):  # of a file system without hard links
                os.link(path, linked)
            (linked if linked.exists() else path).replace(target)
            linked.unlink(missing_ok=True)  # still there if it is the same file as the target
        except FileNotFoundError as err:
            raise NotFound("the uploaded file was removed in the meantime: send it again") from err
        return target

    def remove(self, upload_id: str) -> None:
        """Remove an unfinished upload and its received bytes. Raises NotFound, Conflict."""
        with self._store.write() as connection:
            upload = _required(connection, upload_id)
            if upload.job is not None:
                raise Conflict(f"upload {upload.id} is finished: cancel its job with POST /jobs/{upload.job}/cancel")
            connection.execute(delete(uploads).where(uploads.c.id == upload_id))
        self._parts(upload_id).remove()

    def sweep(self, now: float) -> int:
        """Remove the uploads without a part since EXPIRY_S, and notes of finished ones. Returns how many."""
        with self._store.read() as connection:
            old = select(uploads).where(uploads.c.created_at < now - EXPIRY_S)
            found = [_upload(row) for row in connection.execute(old).mappings()]
        expired = [upload for upload in found if self.expires_at(upload) <= now]
        if expired:
            with self._store.write() as connection:
                connection.execute(delete(uploads).where(uploads.c.id.in_([upload.id for upload in expired])))
            for upload in expired:
                self._parts(upload.id).remove()
        return len(expired)

    def forget_parts(self, upload: Upload) -> None:
        """Remove the received bytes of a finished upload; with the expired uploads, if the store is away."""
        with suppress(OSError, StoreUnavailable):
            self._parts(upload.id).remove()

    def _parts(self, upload_id: str) -> Parts:
        """Return the received parts of an upload."""
        copies, path = self._storage.copies, self._storage.incoming(upload_id)
        return FileParts(path) if copies is None else ObjectParts(copies, path)

    @contextmanager
    def _found(self, upload: Upload) -> Iterator[None]:
        """Watch the store folder. Raises NotFound if the parts of an upload were removed."""
        with self._store.files():
            try:
                yield
            except FileNotFoundError as err:
                raise _unknown(upload.id) from err


def _upload(row: Mapping[Any, Any]) -> Upload:
    return Upload(**{field.name: row[field.name] for field in fields(Upload)})


def _required(connection: Connection, upload_id: str) -> Upload:
    if "\0" in upload_id:  # PostgreSQL rejects NUL in text
        raise _unknown(upload_id)
    row = connection.execute(select(uploads).where(uploads.c.id == upload_id)).mappings().one_or_none()
    if row is None:
        raise _unknown(upload_id)
    return _upload(row)


def _unknown(upload_id: str) -> NotFound:
    return NotFound(f"unknown upload {shown(upload_id)!r}, or it has expired: begin another one")
