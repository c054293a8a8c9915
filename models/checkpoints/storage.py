"""Paths of artifacts in the store folder."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from models.checkpoints.files import sources_digest, write_whole
from models.checkpoints.record import Record


def export_path(store: Path, record: Record) -> Path:
    """Where a store keeps the export of a checkpoint: another one for every change of what the export depends on."""
    made_of = [record.sha256, dict(record.arguments), sources_digest("models"), version("torch")]
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
    return store / "exports" / record.model / f"{key}.safetensors"


def keep(content: bytes, store: Path, name: str) -> Path:
    """Write a checkpoint's bytes, whole or not at all, to where the store keeps them. The same bytes are kept once."""
    path = content_path(store, name, hashlib.sha256(content).hexdigest())
    write_whole(content, path)
    return path


def content_path(store: Path, name: str, sha256: str) -> Path:
    """Where a store keeps the weights with that digest: the same content is one file, and no other is replaced."""
    return store / "checkpoints" / name / content_name(sha256)


def content_name(sha256: str) -> str:
    """The file name of the weights with that digest."""
    return f"{sha256[:12]}.pt"
