"""Rules of a prune, and its outcome."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Named:
    """A file or a folder, by its path in the store folder, and why it is removed or left."""

    path: str
    bytes: int
    why: str


Decided = tuple[Named, bool]  # and whether it is removed


@dataclass(frozen=True, slots=True)
class Rules:
    """What stays: the newest `keep_versions` unpromoted versions of a model; jobs, and evidence of trials, that ended
    in the last `keep_jobs_days`; None: all. `orphans`: files that belong to no version and no job of this database go
    too.
    """

    keep_versions: int | None = None
    keep_jobs_days: float | None = None
    orphans: bool = False


@dataclass(slots=True)
class Pruned:
    """Removed rows and files, or those to be removed. `left`: unneeded files that stay; `failed`: not removable."""

    versions: list[tuple[str, int]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    files: list[Named] = field(default_factory=list)
    left: list[Named] = field(default_factory=list)
    failed: list[Named] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Return the size of the files."""
        return sum(file.bytes for file in self.files)
