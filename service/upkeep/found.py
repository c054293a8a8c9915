"""Outcome of a check of the store."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["missing", "damaged", "orphan", "row"]
PRUNES = "torchloop prune removes it"
RESTORE = "restore it from a backup"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and the way out. `where` is a path in the store folder, or a row in words."""

    kind: Kind
    where: str
    detail: str


@dataclass(slots=True)
class Checked:
    """The faults, and how much was looked at."""

    faults: list[Fault] = field(default_factory=list)
    versions: int = 0
    datasets: int = 0
    files: int = 0
    bytes: int = 0
