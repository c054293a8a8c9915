"""Checkpoint metadata: the record, a JSON file next to the weights. Needs no torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.checkpoints.files import file_digest
from models.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Record:
    """Metadata of a checkpoint: model, digest and origin of the weights.

    arguments  the network's constructor arguments
    config     every hyperparameter of the run
    metrics    metrics on the held-out splits, measured on the reloaded file
    command    the command line that reproduces the file
    notes      conversions when the weights were read: dtypes, names of tensors
    reference  range of each statistic of the spec's check over the training split: name -> [least, greatest]
    drift      distributions of features and answers that drift is measured against, see `models.drift.reference`, or
               why there are none: {"fault": reason}
    artifacts  what belongs to the weights, e.g. a vocabulary, in the form of `artifact_files.divided`
    dataset_sha256  digest of the dataset version; empty for the data of a recipe
    """

    model: str
    sha256: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    dataset: str = ""
    dataset_sha256: str = ""
    torch: str = ""
    command: str = ""
    notes: Sequence[str] = field(default_factory=list)
    reference: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)


def record_path(path: Path) -> Path:
    """Path of the record of the weights at `path`."""
    return path.with_suffix(".json")


def exists(path: Path) -> bool:
    """Check whether `path` has weights, a record, or both."""
    return path.exists() or record_path(path).exists()


def read_verified(name: str, path: Path, record: Record | None = None) -> tuple[bytes, Record]:
    """Read the weights at `path` and verify their digest against the record.

    Without `record`, the record file next to the weights is used. Raises CheckpointError.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise _unreadable(path, err) from err
    return content, _matching(name, path, record, hashlib.sha256(content).hexdigest())


def verify(name: str, path: Path, record: Record | None = None) -> Record:
    """Verify the weights at `path` as `read_verified` does, in little memory, and return their record.

    Raises CheckpointError.
    """
    try:
        sha256 = file_digest(path)
    except OSError as err:
        raise _unreadable(path, err) from err
    return _matching(name, path, record, sha256)


def _unreadable(path: Path, err: OSError) -> CheckpointError:
    return CheckpointError(f"{path.name} cannot be read ({err.strerror}): restore it or train it again")


def _matching(name: str, path: Path, record: Record | None, sha256: str) -> Record:
    """Return the record, by default that next to `path`. Raises CheckpointError if it has another digest."""
    record = _read_record(name, path, sha256) if record is None else record
    if record.sha256 != sha256:
        raise CheckpointError(f"{path.name} is not the file that its record was written for (sha256 differs)")
    return record


def _read_record(name: str, path: Path, sha256: str) -> Record:
    """Read the record next to `path`; without one, return a record with only the model and digest."""
    record_file = record_path(path)
    if not record_file.exists():
        return Record(model=name, sha256=sha256)
    known = {item.name for item in fields(Record)}
    try:
        record = Record(**{key: value for key, value in json.loads(record_file.read_bytes()).items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{record_file.name} cannot be read as a record: restore it or train again") from err
    if record.model != name:
        raise CheckpointError(f"{record_file.name} is a checkpoint of {record.model}, not of {name}")
    return record
