"""Manifest of a dataset version: all of it but its rows. A JSON file in its folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.dataset_options import DatasetOptions

FILE = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A file that rows come from: its digest (of a folder: empty, it is not kept) and how it was read.

    `weight`: how often training repeats its rows that are in the train split.
    """

    sha256: str
    format: str
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    weight: int = 1

    @property
    def options(self) -> DatasetOptions:
        """Return the options that it was read by."""
        return DatasetOptions(
            label_column=self.label_column, split_column=self.split_column, group_column=self.group_column
        )

    @property
    def key(self) -> str:
        """Return the name of its segment."""
        read_by = {name: value for name, value in asdict(self).items() if name != "weight"}
        return hashlib.sha256(json.dumps(read_by, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of a version but its rows.

    reference  range of each statistic of the spec's check over the training split, as the code measured the rows when
               they were added; empty if the check has no statistics
    files      the SHA-256 of each file of the index, by name
    """

    sha256: str
    model: str
    target: str
    labels: Sequence[str]
    schema: Mapping[str, Any]
    originals: Sequence[Original]
    parent: str | None
    inherited: int
    examples: Mapping[str, int]
    by_label: Mapping[str, Mapping[str, int]]
    reference: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read(folder: Path) -> Manifest:
    """Read the manifest of a version. Raises OSError, and ValueError if it is damaged."""
    return parsed((folder / FILE).read_bytes())


def parsed(content: bytes) -> Manifest:
    """Return the manifest in the content of its file. Raises ValueError if it is damaged."""
    try:
        found = json.loads(content)
        return Manifest(**{**found, "originals": [Original(**one) for one in found["originals"]]})
    except (TypeError, KeyError) as err:
        raise ValueError("the manifest is damaged") from err


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a version."""
    (folder / FILE).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True))
