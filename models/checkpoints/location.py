"""Location of a store's files, and of a dataset version in it, as messages carry them."""

from dataclasses import dataclass
from pathlib import Path

CACHE_BYTES = 20 * 2**30


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """The store folder `root`, and the URL of the object store that has its files: empty, if the folder has them.

    cache_bytes  bound of the local copies of an object store's files
    patient      wait while the object store cannot be reached, instead of raising ObjectsUnavailable
    """

    root: Path
    artifacts: str = ""
    cache_bytes: int = CACHE_BYTES
    patient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """A dataset version: its name, e.g. "field@4", its digest, its folder, and the store that the folder is in."""

    label: str
    sha256: str
    folder: Path
    store: StoreLocation | None = None
