"""A checkpoint's files and the record of what they hold. Needs no torch: web process and worker do without it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a checkpoint's weights are and where they come from.

    arguments  the network's constructor arguments
    config     every hyperparameter of the run
    metrics    figures on the held-out splits, measured on the reloaded file
    command    the command line that makes the file again
    """

    model: str
    sha256: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    dataset: str = ""
    torch: str = ""
    command: str = ""


def record_path(path: Path) -> Path:
    """Where the record of the weights at `path` lies."""
    return path.with_suffix(".json")


def exists(path: Path) -> bool:
    """Whether anything of a checkpoint lies at `path`: weights, a record, or both."""
    return path.exists() or record_path(path).exists()


def read_verified(name: str, path: Path, record: Record | None = None) -> tuple[bytes, Record]:
    """The bytes of the weights at `path` with their record; their digest is the record's.

    `record` is what they must be; without it, the one beside them says so. Raises CheckpointError.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise CheckpointError(f"{path.name} cannot be read ({err.strerror}): put it back or train it again") from err
    sha256 = hashlib.sha256(content).hexdigest()
    record = _read_record(name, path, sha256) if record is None else record
    if record.sha256 != sha256:
        raise CheckpointError(f"{path.name} is not the file that its record was written for (sha256 differs)")
    return content, record


def _read_record(name: str, path: Path, sha256: str) -> Record:
    """The record beside `path`, or a bare one where there is none; its digest must be that of the weights."""
    beside = record_path(path)
    if not beside.exists():
        return Record(model=name, sha256=sha256)
    known = {item.name for item in fields(Record)}
    try:
        record = Record(**{key: value for key, value in json.loads(beside.read_bytes()).items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{beside.name} is no readable record: put it back or train again") from err
    if record.model != name:
        raise CheckpointError(f"{beside.name} is a checkpoint of {record.model}, not of {name}")
    return record
