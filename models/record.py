"""What a checkpoint's weights are: the record beside them. Needs no torch, so that the worker can do without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
