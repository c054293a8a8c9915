"""Captures without requests: rows as the writer makes them, and what is served for tests of capture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.packed_rows import packed_row
from models.samples import Batch
from service.data.capture_settings import CaptureSettings
from service.data.captures import Captures, Order
from service.data.feedback import Entry, Kind
from service.store.database import Store
from service.store.tables import jobs, versions
from service.telemetry.ids import prediction_id
from service.telemetry.served import Served

START = 1_790_000_000.0  # seconds since 1970
ALL = CaptureSettings(rate=1.0)


def stem(number: int, at: float = START) -> str:
    """The stem of the request with that number, begun at that time."""
    return f"{int(at * 1000):011x}-5f3a9c1d-{number + 1:x}"


def prediction(number: int, at: float = START, version: int = 1) -> str:
    """The id of its prediction."""
    return prediction_id(stem(number, at), version)


def row(number: int, *, at: float = START, version: int = 1, position: int = 0, **columns: Any) -> dict[str, Any]:
    """A row of a captured sample: x = number, answered with label 7."""
    content = packed_row({"": np.array([number], np.float32)})
    answer = packed_row({"": np.array([2 * number + 1], np.float32)})
    return {
        "model": "line",
        "id": prediction(number, at, version),
        "position": position,
        "version": version,
        "at": at,
        "key": None,
        "media_type": "application/json",
        "code": "c" * 64,
        "backend": "eager",
        "form": None,
        "rate": 1.0,
        "draw": number * 2_654_435_761 % 2**31,
        "state": "new",
        "probability": 0.9,
        "bytes": len(content) + len(answer),
        "said": {"": {"label": 7, "probability": 0.9}},
        "answer": answer,
        "content": content,
        "original": None,
        **columns,
    }


def registered(store: Store, *numbers: int, model: str = "line") -> None:
    """Add versions of a model, without files."""
    with store.write() as connection:
        for number in numbers:
            connection.execute(
                versions.insert().values(model=model, version=number, created_at=START, path="none", record={})
            )


def captured(store: Store, rows: Sequence[Mapping[str, Any]], settings: CaptureSettings = ALL) -> Captures:
    """Captures of a model with these rows."""
    captures = Captures(store)
    captures.set("line", settings, by="test", now=START)
    captures.insert([dict(one) for one in rows], START)
    return captures


def served(number: int = 0, *, model: str = "line", count: int = 1, **fields: Any) -> Served:
    """A request that has ended: x = 1, ... answered by version 4 with 2x + 1."""
    entries = np.arange(1, count + 1, dtype=np.float32)[:, None]
    values: Batch = 2 * entries + 1
    known: dict[str, Any] = {
        "route": "/predict/{model}",
        "model": model,
        "stem": stem(number),
        "version": 4,
        "headers": {b"content-type": b"application/json"},
        "media_type": "application/json",
        "body": b"{}",
        "samples": entries,
        "positions": range(count),
        "values": values,
        "error": None,
        "batch_size": count,
        "queue_s": 0.0,
        "forward_s": 0.0,
        "total_s": 0.0,
        "entries": entries,
    }
    return Served(**{**known, **fields})


def of_job(store: Store, job: str, dataset: str, *, version: int | None = None) -> None:
    """A job that made a dataset version, and one that trained a version on it."""
    made = {
        "model": "line",
        "config": {},
        "promote": "never",
        "attempt": 1,
        "released": 0,
        "cancel_requested": False,
        "created_at": START,
        "state": "succeeded",
        "dataset": dataset,
        "dataset_sha256": "d" * 64,
    }
    with store.write() as connection:
        connection.execute(jobs.insert().values(id=job, kind="ingest", **made))
        if version is not None:
            connection.execute(jobs.insert().values(id=f"{job}t", kind="train", version=version, **made))


def entry(number: int, truth: object = 7, kind: Kind = "correction", **fields: object) -> Entry:
    """Feedback about a captured sample."""
    known = {"id": prediction(number), "key": None, "position": 0, "truth": truth, "kind": kind, "drawn": "random"}
    return Entry(**{**known, "by": "me", **fields})  # type: ignore[arg-type]


def ids(captures: Captures, order: Order = "newest", **options: object) -> list[str]:
    """The ids of a list of captured samples, in its order."""
    asked: dict[str, object] = {"unlabelled": False, "version": None, "limit": 200, "after": None, **options}
    return [one.id for one in captures.page("line", order=order, **asked)[0]]  # type: ignore[arg-type]


def held(store: Store) -> tuple[int, int]:
    """Examples and bytes that the settings say are held."""
    kept = Captures(store).settings_of("line")
    return kept.examples, kept.bytes
