"""Ingest: make a dataset version of a file, and of the version that it grows. See `ingest`."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints.code import cache_key
from models.checkpoints.files import file_digest
from models.checkpoints.storage import Storage
from models.dataset_manifest import FILE, Manifest, Original
from models.messages import DatasetOptions, DatasetSummary, Ingested
from models.packed_rows import packed_row
from models.reference import widened
from models.signature import Tensor
from models.spec import ModelSpec
from training.datasets.errors import DatasetError
from training.datasets.joined import MOST_ROWS, Joined, KeptRows, all_labels, joined, no_rows, read_kin, too_many_rows
from training.datasets.judge import Good, Judge, Refused, sample_digest
from training.datasets.labels import Target
from training.datasets.readers.detect import open_source
from training.datasets.report import ReportWriter, warnings_of
from training.datasets.segments import Samples, SegmentWriter, numbers_of
from training.datasets.source import Source, Wanted, in_parts
from training.datasets.splits import TRAIN
from training.datasets.thumbnails import Thumbnails, moved
from training.datasets.version import (
    Index,
    counts,
    link_or_copy,
    link_tree,
    read_index,
    read_manifest,
    version_digest,
    write_version,
)
from training.reference import PART, measure_parts

Tell = Callable[[int, int], None]
_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Description of an ingest.

    source          a file or a folder
    labels          the model's labels, if they are fixed
    parent          folder of the version that grows
    kin             folders of the other versions of the name, the first one first: their contents keep their splits
    allow_rejected  greatest share of refused rows
    keeps_file      whether the store gets the file, so that newer code can decode it again
    weight          how often training repeats the new rows in the train split
    known           digests of the samples of the built-in training split (see `known_digests`)
    """

    model: str
    spec: ModelSpec
    target: Target
    labels: Sequence[str] | None
    store: Path
    job: str
    source: Path
    format: str = "auto"
    options: DatasetOptions = field(default_factory=DatasetOptions)
    parent: Path | None = None
    kin: Sequence[Path] = ()
    allow_rejected: float = 0.0
    known: frozenset[bytes] = frozenset()
    warnings: tuple[str, ...] = ()
    keeps_file: bool = True
    weight: int = 1


def ingest(request: Request, tell: Tell) -> Ingested:
    """Read a file, check its rows, and write a version into the store; `tell` gets bytes or rows done and in all.

    The version appears by one rename, or not at all. Raises DatasetError, also if more rows are refused than allowed.
    """
    storage = Storage(request.store)
    with _draft(storage, request) as draft:
        manifest, summary = _made(request, storage, draft, tell)
        _keep_report(draft, storage, request)
        if summary.rejected > request.allow_rejected * summary.rows:
            raise _too_many(request, summary)
        if not sum(summary.examples.values()):
            raise _no_rows(summary)
        target = storage.dataset(request.model, manifest.sha256)
        shutil.rmtree(draft / "scratch", ignore_errors=True)
        if (target / FILE).exists():  # the same rows were sent before, maybe when nothing drew them
            moved(draft / "thumbnails", target / "thumbnails")
        else:
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        summary = replace(summary, manifest_sha256=file_digest(target / FILE))
    folder = target.relative_to(storage.root)
    return Ingested(sha256=manifest.sha256, folder=folder.as_posix(), summary=summary)


@contextmanager
def _draft(storage: Storage, request: Request) -> Iterator[Path]:
    """Make the hidden folder of a version in the making, in place of that of a killed attempt; remove it at the end."""
    draft = storage.dataset_draft(request.model, request.job)
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "scratch").mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _made(request: Request, storage: Storage, draft: Path, tell: Tell) -> tuple[Manifest, DatasetSummary]:
    parent = _parent(request)
    for folder in request.kin:
        read_kin(folder)  # before the file is read, which may take long
    wanted = Wanted(spec=request.spec, options=request.options, scratch=draft / "scratch")
    source = open_source(request.source, request.format, wanted)
    original = Original(
        sha256=_kept(request, storage),
        format=request.format,
        label_column=request.options.label_column,
        split_column=request.options.split_column,
        group_column=request.options.group_column,
        weight=request.weight,
    )
    cache = draft / "cache" / cache_key(request.model, request.spec)
    if request.parent and (old := request.parent / "cache" / cache.name).is_dir():
        link_tree(old, cache)
    shutil.rmtree(cache / original.key, ignore_errors=True)
    thumbnails = Thumbnails(draft, request.spec)
    report = ReportWriter(draft / "report.jsonl", thumbnails.refused)
    try:
        rows, read = _judged(request, source, cache / original.key, report, thumbnails, tell)
    finally:
        report.close()
    made, summary, index = _numbered(request, draft, source, original, parent, rows, read, report)
    thumbnails.write(index, made.labels, request.parent)
    return made, summary


def _parent(request: Request) -> tuple[Manifest, Index] | None:
    """Open the version that grows. Raises DatasetError if it does not fit the current model."""
    if request.parent is None:
        return None
    manifest = read_manifest(request.parent)
    if (manifest.target, manifest.schema) != (request.target, schema_of(request.spec)):
        raise DatasetError(
            "Other inputs", "the inputs or the target of the model have changed since the parent was made: start anew"
        )
    return manifest, read_index(request.parent)


def _judged(
    request: Request, source: Source, segment: Path, report: ReportWriter, thumbnails: Thumbnails, tell: Tell
) -> tuple[KeptRows, int]:
    """Check all rows, and write the samples of the good ones. Returns the kept rows, and the count of all."""
    judge = Judge(request.spec, request.target, request.labels, source.columns)
    writer = SegmentWriter(segment, named=bool(request.spec.inputs))
    rows, read, told = KeptRows(), 0, 0.0
    try:
        for part in in_parts(source.rows()):
            found = judge(part)
            good = [one for one in found if isinstance(one, Good)]
            report.add(one for one in found if isinstance(one, Refused))
            read += len(part)
            if read > MOST_ROWS:  # also refused ones, each of which is reported on
                raise too_many_rows()
            for one in good:
                thumbnails.example(one)
                rows.add(one, in_training=bool(request.known) and known_digest(one.sample) in request.known)
            if good:
                writer.add([one.row.number for one in good], [one.sample for one in good])
            if time.monotonic() - told > _EVERY_S:
                tell(*source.progress())
                told = time.monotonic()
    finally:
        writer.close()
    return rows, read


def _numbered(
    request: Request,
    draft: Path,
    source: Source,
    original: Original,
    parent: tuple[Manifest, Index] | None,
    rows: KeptRows,
    read: int,
    report: ReportWriter,
) -> tuple[Manifest, DatasetSummary, Index]:
    """Join the rows with the parent's, assign splits, and write manifest and index. Returns the index, too."""
    manifest, old = parent or (None, no_rows())
    labels = all_labels(request.labels, manifest.labels if manifest else (), rows) if request.target == "label" else []
    found = joined(manifest, old, rows, labels, request.kin)
    schema = schema_of(request.spec)
    examples, by_label = counts(found.index, labels)
    segment = draft / "cache" / cache_key(request.model, request.spec) / original.key
    reference = _reference(request, manifest, found, segment)
    originals = [*(manifest.originals if manifest else ()), original]
    made = Manifest(
        sha256=version_digest(found.index, labels, schema, [one.weight for one in originals]),
        model=request.model,
        target=request.target,
        labels=labels,
        schema=schema,
        originals=originals,
        parent=manifest.sha256 if manifest else None,
        inherited=found.inherited,
        examples=examples,
        by_label=by_label,
        reference=reference,
    )
    write_version(draft, made, found.index)
    reasons = report.reasons()
    summary = DatasetSummary(
        format=source.format,
        schema=schema,
        examples=examples,
        by_label=by_label,
        rows=read,
        rejected=report.rejected,
        duplicates=found.duplicates,
        conflicting_labels=len(found.conflicts),
        added=len(found.index) - found.inherited,
        by_reason=reasons,
        warnings=(
            *request.warnings,
            *source.warnings,
            *warnings_of(examples, by_label, source.ignored, found, reasons),
        ),
        reference=reference,
    )
    return made, summary, found.index


def _reference(request: Request, parent: Manifest | None, found: Joined, segment: Path) -> Mapping[str, Any]:
    """Measure the new training rows, and widen the ranges of the parent by theirs: its rows keep their split."""
    new = slice(found.inherited, None)
    numbers = found.index.numbers[new][found.index.splits[new] == TRAIN]
    before = parent.reference if parent is not None and parent.examples["train"] else None
    if request.spec.inputs or not len(numbers):
        return before or {}
    places = np.searchsorted(numbers_of(segment), numbers)
    samples = Samples(segment)
    parts = (samples.take(places[begin : begin + PART]) for begin in range(0, len(places), PART))
    measured = measure_parts(request.model, request.spec, parts)
    return measured if before is None else widened(before, measured)


def _keep_report(draft: Path, storage: Storage, request: Request) -> None:
    """Move the report to its place, that of the job: equal rows may come in files with different refused rows."""
    path = storage.report(request.model, request.job)
    path.parent.mkdir(exist_ok=True)
    (draft / "report.jsonl").replace(path)
    moved(draft / "refused", storage.refused_rows(request.model, request.job))


def _no_rows(summary: DatasetSummary) -> DatasetError:
    if not summary.rejected:
        return DatasetError("No rows", "the file has no rows")
    detail = f"all {summary.rows:,} rows were refused. {_most_often(summary)}. Correct them"
    return DatasetError("No good rows", detail, summary=summary)


def _too_many(request: Request, summary: DatasetSummary) -> DatasetError:
    return DatasetError(
        "Too many rows refused",
        f"{summary.rejected:,} of {summary.rows:,} rows were refused, at most {request.allow_rejected:.2%} may be. "
        f"{_most_often(summary)}. Correct them, or allow a greater share with allow_rejected",
        summary=summary,
    )


def _most_often(summary: DatasetSummary) -> str:
    most = summary.by_reason[0]
    first = most.first[0]
    return f"Most often: {most.title} ({most.rows:,} rows), for example row {first.row}: {first.detail}"


def _kept(request: Request, storage: Storage) -> str:
    """Keep the file in the store under its digest, and return the digest; a folder is not kept."""
    if request.source.is_dir():
        return ""
    sha256 = file_digest(request.source)
    target = storage.original(request.model, sha256)
    if target.exists() or not request.keeps_file:
        return sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{sha256}-{request.job}")
    partial.unlink(missing_ok=True)
    link_or_copy(str(request.source), str(partial))
    partial.replace(target)
    return sha256


def schema_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the form of a sample: the entry, or the inputs by name."""
    if spec.inputs:
        return {name: {"kind": kind.kind, **_finite(kind.described())} for name, kind in spec.inputs.items()}
    entry = spec.tensor
    described = Tensor(entry.shape, entry.dtype, entry.low, entry.high).described()
    return {"entry": _finite(described)}


def _finite(described: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in described.items()
    }


def known_digest(sample: Any) -> bytes:
    """Return the digest of a decoded sample: an array, or values by name."""
    return hashlib.sha256(packed_row(sample)).digest() if isinstance(sample, dict) else sample_digest(sample)
