"""Storage: the files of a store folder, and their ways to and from an object store that has the files."""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import IO

from models.checkpoints import artifact_files
from models.checkpoints.copies import Copies
from models.checkpoints.files import age_s, file_digest, remove, size, write_whole
from models.checkpoints.layout import CACHE, DRAFT, ERASED, ORIGINALS, REPORTS, Layout
from models.checkpoints.location import StoreLocation
from models.checkpoints.objects import Objects
from models.checkpoints.record import Record

_UPLOAD = ".upload-"
_UNPACKED = ".unpacked-"
_DATASET_LEFTOVERS = (  # of killed processes: of erasures, copies, samples that were decoded again
    f"datasets/*/{ERASED}*",
    "datasets/*/.fetched-*",
    "datasets/*/.dropped-*",
    f"datasets/*/{ORIGINALS}/.*",
    f"datasets/*/*/{CACHE}/*/{DRAFT}*",
)
_UNLOCKED_S = 10.0  # between the creation of an upload's file and its lock
DAY_S = 86_400.0


def _unlocked(path: Path) -> bool:
    """Return whether no process holds the lock of this file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _visible(folder: Path) -> list[Path]:
    """Return the content of a folder, in order, without hidden names; nothing if it does not exist."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder and in those below."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _files_of(path: Path, record: Record) -> list[Path]:
    """Return the weights of a version at `path`, and the files of its artifacts."""
    return [path, *(path.parent / name for name in artifact_files.names(record))]


class Storage(Layout):
    """Files of a store folder, and their ways to and from an object store, if it has one.

    With an object store, `copies` is set: checkpoints, exports, datasets, originals, reports, plots, resume points and
    parts of uploads are there, and this folder has copies. What was written here has to be published; what another
    machine may have written has to be fetched. Without one, both do nothing, and return the same path.
    """

    def __init__(self, root: Path, copies: Copies | None = None, location: StoreLocation | None = None) -> None:
        super().__init__(root)
        self.copies = copies
        self._location = location

    @classmethod
    def at(cls, location: StoreLocation, watch: Callable[[], AbstractContextManager[None]] = nullcontext) -> "Storage":
        """Open the files of a store; `watch` is entered around each access to its object store.

        Raises ObjectsRefused if there is one and it cannot be used.
        """
        if not location.artifacts:
            return cls(location.root)
        objects = Objects.at(location.artifacts, watch=watch, patient=location.patient)
        return cls(location.root, Copies(location.root, objects, location.cache_bytes), location)

    @property
    def hasty(self) -> "Storage":
        """The same files, for optional work that is skipped while the object store is away."""
        if self.copies is None:
            return self
        return Storage(self.root, self.copies.hasty, self._location)

    def location(self, *, patient: bool = False) -> StoreLocation:
        """Return what another process needs to open the same files."""
        if self._location is None:
            return StoreLocation(self.root.resolve())
        return replace(self._location, root=self.root.resolve(), patient=patient)

    def publish(self, path: Path) -> None:
        """Give the object store a file that never changes. Raises OSError, ObjectsUnavailable."""
        if self.copies is not None:
            self.copies.publish(path)

    def replace(self, path: Path) -> None:
        """Give the object store the present state of a file, in place of earlier ones. Raises as `publish`."""
        if self.copies is not None:
            self.copies.replace(path)

    def fetch(self, path: Path, sha256: str) -> Path:
        """Return the path of a file that never changes, which is there by then, if it can be had.

        Raises CheckpointError if the object store has none, or a damaged one, and ObjectsUnavailable.
        """
        return path if self.copies is None else self.copies.fetch(path, sha256)

    def newest(self, path: Path) -> Path:
        """Return the path of a file that may change, with its newest state if there is one. Raises as `fetch`."""
        return path if self.copies is None else self.copies.newest(path)

    def publish_checkpoint(self, path: Path, record: Record) -> None:
        """Give the object store weights and the files of their artifacts. Raises as `publish`."""
        for file in _files_of(path, record):
            self.publish(file)

    def publish_missing(self, path: Path, record: Record) -> None:
        """Give the object store again what another process has removed since `publish_checkpoint`, in a transaction
        after which it is needed. Raises as `publish`.
        """
        for file in _files_of(path, record):
            if self.copies is not None and not self.exists(file):
                self.copies.publish(file)

    def fetch_checkpoint(self, path: Path, record: Record) -> Path:
        """Return the path of weights, beside which the files of their artifacts are. Raises as `fetch`."""
        if self.copies is not None:
            for name, sha256 in artifact_files.digests(record).items():
                self.copies.fetch(path.parent / name, sha256)
        return self.fetch(path, record.sha256)

    def publish_dataset(self, model: str, sha256: str) -> None:
        """Give the object store the files of a dataset version but the decoded samples. Raises as `publish`."""
        if self.copies is not None:
            self.copies.publish_folder(self.dataset(model, sha256))

    def fetch_dataset(self, model: str, sha256: str) -> Path:
        """Return the folder of a dataset version, with all files but decoded samples. Raises as `fetch`."""
        folder = self.dataset(model, sha256)
        return folder if self.copies is None else self.copies.fetch_folder(folder)

    def publish_thumbnails(self, folder: Path) -> None:
        """Give the object store the pictures below a folder, and the list of them. Raises as `publish`."""
        if self.copies is not None:
            for path in (path for pattern in ("**/*.png", "thumbnails/*.json") for path in folder.glob(pattern)):
                self.copies.replace(path)

    def content(self, folder: Path, name: str) -> bytes:
        """Return the content of one file of a dataset version. Raises OSError, and as `fetch`."""
        path = folder / name
        return path.read_bytes() if self.copies is None or path.exists() else self.copies.content_in(folder, name)

    def has_dataset(self, model: str, sha256: str) -> bool:
        """Return whether there are files of this dataset version. Raises ObjectsUnavailable."""
        folder = self.dataset(model, sha256)
        return folder.is_dir() if self.copies is None else self.copies.has_folder(folder)

    def age_s(self, path: Path, now: float) -> float:
        """Return how many seconds ago a file was written, here or to the object store; 0 if there is none."""
        there = [] if self.copies is None else self.copies.objects.below(self.copies.name(path))
        return min(now - found.modified for found in there) if there else age_s(path, now)

    def exists(self, path: Path) -> bool:
        """Return whether there is a file of that path; with an object store, whether that has it."""
        return path.exists() if self.copies is None else bool(self.copies.objects.below(self.copies.name(path)))

    def digest(self, path: Path, sha256: str) -> str:
        """Return the SHA-256 of a file, or of the object that is named by `sha256`; that of its only object, if
        `sha256` is empty. Raises OSError.
        """
        if self.copies is None:
            return file_digest(path)
        name = self.copies.name(path)
        keys = [f"{name}/{sha256}"] if sha256 else [found.key for found in self.copies.objects.below(name)]
        return self.copies.content_digest(keys[-1] if keys else name)

    def size(self, path: Path) -> int:
        """Return the size of a file, or of its objects in the object store, in bytes; 0 if there is none."""
        there = [] if self.copies is None else self.copies.objects.below(self.copies.name(path))
        return sum(found.bytes for found in there) if there else size(path)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder here, and from the object store. Raises OSError, ObjectsUnavailable."""
        if self.copies is not None:
            self.copies.remove(path)
        remove(path)

    def keep(self, model: str, content: bytes) -> Path:
        """Write weights atomically, publish them and return their path. Raises OSError, ObjectsUnavailable."""
        path = self.checkpoint(model, hashlib.sha256(content).hexdigest())
        write_whole(content, path)
        self.publish(path)
        return path

    def models(self) -> list[str]:
        """Return the models that have weights or exports."""
        folders = ("checkpoints", "exports")
        there = [] if self.copies is None else [name for folder in folders for name in self.copies.folders(folder)]
        return sorted({*there, *(path.name for folder in folders for path in _visible(self.root / folder))})

    def weights(self, model: str) -> list[Path]:
        """Return the files of a model's weights and large artifacts."""
        return self._files("checkpoints", model)

    def exports(self, model: str) -> list[Path]:
        """Return the files of a model's exports."""
        return self._files("exports", model)

    def _files(self, *folder: str) -> list[Path]:
        """Return the files in a folder, here and in the object store."""
        here = [path for path in _visible(self.root.joinpath(*folder)) if not path.is_dir()]
        return here if self.copies is None else sorted({*here, *self.copies.below(*folder)})

    def constant_files(self) -> Iterator[Path]:
        """Yield the files of this folder that never change and belong into an object store: weights, exports, ..."""
        for pattern in ("checkpoints/*/*.pt", f"checkpoints/*/*{artifact_files.SUFFIX}", "exports/*/*.safetensors"):
            yield from sorted(path for path in self.root.glob(pattern) if not path.name.startswith("."))
        for folder in ("originals", "reports"):
            yield from sorted(self.root.glob(f"datasets/*/{folder}/[!.]*"))
        yield from sorted(path for path in self.root.glob("jobs/*/tensorboard/*") if path.is_file())

    def changing_files(self) -> Iterator[Path]:
        """Yield the files of this folder of which an object store has the newest state: plots, resume points."""
        for pattern in ("jobs/*/plot.png", "jobs/*/resume-*.pt"):
            yield from sorted(self.root.glob(pattern))

    def dataset_folders(self) -> Iterator[Path]:
        """Yield the folders of dataset versions in this folder."""
        yield from sorted(
            path.parent for path in self.root.glob("datasets/*/*/manifest.json") if path.parent.name[0] != "."
        )

    def dataset_models(self) -> list[str]:
        """Return the models that have files of datasets."""
        there = [] if self.copies is None else self.copies.folders("datasets")
        return sorted({*there, *(path.name for path in _visible(self.root / "datasets"))})

    def dataset_versions(self, model: str) -> list[Path]:
        """Return the folders of a model's dataset versions."""
        folder = self.datasets(model)
        there = [] if self.copies is None else self.copies.folders(self.copies.name(folder))
        found = {*(folder / name for name in there), *_visible(folder)}
        return sorted(path for path in found if path.name not in {ORIGINALS, REPORTS})

    def originals(self, model: str) -> list[Path]:
        """Return the files that a model's dataset versions were made of."""
        return self._files("datasets", model, ORIGINALS)

    def caches(self, model: str, sha256: str) -> list[Path]:
        """Return the folders of decoded samples of a dataset version; their names are keys of the code."""
        return _visible(self.dataset(model, sha256) / CACHE)

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        reports = {path.stem for path in self.root.glob(f"datasets/*/{REPORTS}/*")}
        drafts = {path.name.removeprefix(DRAFT) for path in self.root.glob(f"datasets/*/{DRAFT}*")}
        here = {folder.name for folder in self.root.glob("jobs/*")} | reports | drafts
        if self.copies is not None:
            here |= {*self.copies.folders("jobs")}
            for model in self.dataset_models():
                here |= {path.stem for path in self.copies.below("datasets", model, REPORTS)}
        return sorted(here)

    def job_files(self, job_id: str) -> list[Path]:
        """Return the files of a job: plot, resume points, event files, report of refused rows, thumbnails, draft."""
        reports = [self.report(model, job_id) for model in self.dataset_models()]
        here = [path for folder in self._folders(job_id) for path in _files(folder)]
        if self.copies is not None:
            folders = map(self.copies.name, self._folders(job_id))
            here = sorted({*here, *(path for folder in folders for path in self.copies.below(folder))})
        return [*here, *(path for path in reports if self.exists(path))]

    def draft_files(self, job_id: str) -> list[Path]:
        """Return the files of the dataset version that a job is making."""
        return [path for folder in self._drafts(job_id) for path in _files(folder)]

    def resume_points(self, job_id: str) -> list[Path]:
        """Return the resume points of all attempts at a job, also half-written ones."""
        here = [path for pattern in ("resume-*", ".resume-*") for path in self._job(job_id).glob(pattern)]
        there = [] if self.copies is None else self.copies.below("jobs", job_id)
        return [*here, *(path for path in there if path.name.startswith("resume-") and path not in here)]

    def remove_empty(self, job_id: str) -> None:
        """Remove the folders of a job that hold no file. Raises OSError."""
        for top in self._folders(job_id):
            inner = [path for path in top.rglob("*") if path.is_dir() and not path.is_symlink()]
            for folder in [*sorted(inner, reverse=True), top]:
                with suppress(FileNotFoundError, NotADirectoryError):
                    if not any(folder.iterdir()):
                        folder.rmdir()

    def _folders(self, job_id: str) -> list[Path]:
        """Return the folders of a job, which need not exist."""
        thumbnails = [self.refused_rows(model, job_id) for model in self.dataset_models()]
        return [self._job(job_id), *self._drafts(job_id), *thumbnails]

    def remove_resume_points(self, job_id: str) -> None:
        """Remove the resume points of all attempts at a job. Raises OSError, ObjectsUnavailable."""
        for path in self.resume_points(job_id):
            if not path.name.startswith("."):
                self.remove(path)

    @contextmanager
    def upload(self) -> Iterator[IO[bytes]]:
        """Open a temporary file for an upload, removed at the end. Its `name` is its path. Raises OSError."""
        with NamedTemporaryFile(dir=self.root.resolve(), prefix=_UPLOAD) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # while this process lives
            yield file

    @contextmanager
    def unpacking(self) -> Iterator[Path]:
        """Make a temporary folder for the members of an upload, removed at the end. Raises OSError."""
        with TemporaryDirectory(dir=self.root.resolve(), prefix=_UNPACKED) as folder:
            yield Path(folder)

    def receiving(self) -> bool:
        """Return whether an upload is in progress, in any process that uses the store."""
        return any(not _unlocked(path) for path in self.root.glob(f"{_UPLOAD}*"))

    def remove_abandoned(self, now: float) -> int:
        """Remove what `abandoned` returns. Returns how many. Raises OSError."""
        abandoned = self.abandoned(now)
        for path in abandoned:
            remove(path)
        return len(abandoned)

    def abandoned(self, now: float) -> list[Path]:
        """Return temporary files and folders of processes that were killed.

        Other services may use the same store: files of uploads in progress are locked, and others are left for a day.
        """
        uploads = [path for path in self.root.glob(f"{_UPLOAD}*") if age_s(path, now) > _UNLOCKED_S and _unlocked(path)]
        parts = [path for path in (self.root / "uploads").glob("*") if age_s(path, now) > DAY_S and _unlocked(path)]
        hidden = [path for folder in ("checkpoints", "exports", "recipes", "jobs") for path in self._hidden(folder)]
        for pattern in (f"{_UNPACKED}*", *_DATASET_LEFTOVERS):
            hidden += self.root.glob(pattern)
        return [*uploads, *parts, *(path for path in hidden if age_s(path, now) > DAY_S)]

    def left_in_objects(self, now: float) -> list[Path]:
        """Return parts of uploads without a part for a day, and probes, that processes which were killed have left in
        the object store, if there is one. Raises ObjectsUnavailable.
        """
        found = () if self.copies is None else [*self.copies.below("uploads"), *self.copies.below("probes")]
        return sorted(path for path in {*found} if self.age_s(path, now) > DAY_S)

    def _hidden(self, folder: str) -> Iterator[Path]:
        """Yield the files that write_whole has begun."""
        return (path for path in (self.root / folder).rglob(".*") if path.is_file())

    def _drafts(self, job_id: str) -> list[Path]:
        return [self.dataset_draft(model, job_id) for model in self.dataset_models()]
