"""Ingest jobs: a file that was uploaded becomes a dataset version. How they are queued, ordered and ended."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from models.messages import DatasetOptions, DatasetSummary, Ingest, Ingested
from service.data import retention
from service.data.datasets import Datasets
from service.data.uploads import Upload, Uploads
from service.errors import Conflict, NotFound, ObjectsAway
from service.jobs.queue import Job, Jobs
from service.store.database import Store

log = logging.getLogger(__name__)


class Ingests:
    """Queues ingest jobs, and registers what became of them."""

    def __init__(self, store: Store, jobs: Jobs) -> None:
        self._store = store
        self._storage = store.storage
        self._datasets = Datasets(store)
        self._jobs = jobs

    def finish_upload(
        self,
        uploads: Uploads,
        upload: Upload,
        config: Mapping[str, Any],
        *,
        parent: str | None,
        allow_rejected: float,
        submitter: str,
        most: int,
        now: float,
    ) -> Job:
        """Queue the job of an upload that is complete, once: a repeat returns the first job.

        Raises Conflict if parts are missing, Invalid for another SHA-256, NotFound for an unknown parent, LimitReached.
        """
        try:
            if upload.job is None:
                return self._finished(uploads, upload, config, parent, allow_rejected, submitter, most, now)
        except (NotFound, Conflict):
            upload = uploads.get(upload.id)
            if upload.job is None:
                raise
        assert upload.job is not None  # finished before, or by another request in the meantime
        return self._jobs.get(upload.job)

    def _finished(
        self,
        uploads: Uploads,
        upload: Upload,
        config: Mapping[str, Any],
        parent: str | None,
        allow_rejected: float,
        submitter: str,
        most: int,
        now: float,
    ) -> Job:
        sha256, job_id = uploads.digest(upload), uuid4().hex
        uploads.offer(self._storage.incoming(upload.id), upload.model, sha256)
        with self._store.files(), self._store.write() as connection:
            job = self._queued(
                connection,
                upload.model,
                upload.name,
                config,
                parameters(sha256, upload.format, upload.options, allow_rejected),
                parent=parent,
                job_id=job_id,
                submitter=submitter,
                most=most,
                now=now,
            )
            uploads.hand_over(connection, upload, job_id, sha256)
        uploads.forget_parts(upload)
        return job

    def add_file(
        self,
        uploads: Uploads,
        path: Path,
        model: str,
        name: str,
        config: Mapping[str, Any],
        ingest: Mapping[str, Any],
        *,
        parent: str | None,
        key: str | None,
        submitter: str,
        most: int,
        now: float,
    ) -> Job:
        """Queue the job of a file that came in one request, and keep the file.

        Raises NotFound for an unknown parent, Invalid for a repeated key with another order, LimitReached.
        """
        job_id = uuid4().hex
        uploads.offer(path, model, ingest["source"])
        with self._store.files(), self._store.write() as connection:
            job = self._queued(
                connection,
                model,
                name,
                config,
                ingest,
                parent=parent,
                key=key,
                job_id=job_id,
                submitter=submitter,
                most=most,
                now=now,
            )
            if job.id == job_id:
                uploads.keep_original(path, model, ingest["source"])
        return job

    def _queued(
        self,
        connection: Connection,
        model: str,
        name: str,
        config: Mapping[str, Any],
        ingest: Mapping[str, Any],
        *,
        parent: str | None,
        **options: Any,
    ) -> Job:
        """Pin the parent and add the job."""
        grown = None if parent is None else self._datasets.find(connection, model, parent)
        label, sha256 = (None, None) if grown is None else (grown.label, grown.sha256)
        pinned = {**ingest, "parent": label, "parent_sha256": sha256}
        return self._jobs.enqueue_ingest(connection, model, name, config, pinned, **options)

    def order(self, job: Job, data: Path) -> Ingest:
        """Return the order of an ingest job. `data` is the folder of the recipe's data."""
        assert job.ingest is not None
        parent, name = job.ingest["parent_sha256"], (job.dataset or "").partition("@")[0]
        with self._store.read() as connection:
            kept = retention.kept(connection, job.model)
        kin = dict.fromkeys(one.sha256 for one in kept if one.name == name and one.sha256 != parent)
        return Ingest(
            model=job.model,
            store=self._storage.location(patient=True),
            job=job.id,
            attempt=job.attempt,
            source=self._storage.original(job.model, job.ingest["source"]).resolve(),
            data=data.resolve(),
            format=job.ingest["format"],
            options=DatasetOptions(**job.ingest["options"]),
            parent=None if parent is None else self._storage.dataset(job.model, parent).resolve(),
            kin=tuple(self._storage.dataset(job.model, sha256).resolve() for sha256 in kin),
            allow_rejected=job.ingest["allow_rejected"],
            config=job.config,
            from_built_in=job.ingest.get("from_built_in", False),
            weight=job.ingest.get("weight", 1),
        )

    def finish(self, job: Job, made: Ingested, *, now: float) -> None:
        """Register the version and finish the job, in one transaction.

        Raises LeaseLost, and NotFound if the files were erased with an equal version in the meantime.
        """
        assert job.ingest is not None
        with self._store.write() as connection:
            if not self._has_files(job, made):
                raise NotFound(f"the files of {job.dataset} were erased while they were made")
            version = self._datasets.add(
                connection,
                job.model,
                job.dataset or "",
                made,
                source=job.ingest["source"],
                parent=job.ingest["parent"],
                job=job.id,
                now=now,
            )
            self._jobs.finish_ingest(connection, job, version, report_of(asdict(made.summary)), now=now)
        fields = {"job": job.id, "model": job.model, "dataset": version.label, "sha256": version.sha256[:12]}
        log.info("dataset version registered", extra=fields)

    def _has_files(self, job: Job, made: Ingested) -> bool:
        """Return whether the files of a version are there still; True if the object store cannot say so now."""
        if self._storage.copies is None:
            return (self._store.folder / made.folder).is_dir()
        try:
            return self._storage.has_dataset(job.model, made.sha256)
        except ObjectsAway:
            return True


def parameters(source: str, form: str, options: Mapping[str, str | None], allow_rejected: float) -> dict[str, Any]:
    """Return the parameters of an ingest job but its parent. `source` is the digest of the uploaded file."""
    return {"source": source, "format": form, "options": dict(options), "allow_rejected": allow_rejected}


def report_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a stored DatasetSummary: its rows, refused rows by reason, and warnings."""
    return {
        "rows": summary["rows"],
        "good": summary["rows"] - summary["rejected"],
        "rejected": summary["rejected"],
        "by_reason": summary["by_reason"],
        "warnings": summary["warnings"],
    }


def reported(summary: DatasetSummary | None) -> dict[str, Any] | None:
    """Return the report of an ingest that refused its file; None if it read no rows."""
    return None if summary is None else report_of(asdict(summary))
