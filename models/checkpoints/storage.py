"""Storage: paths of artifacts in the store folder. No other module joins these folder names."""

import fcntl
import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import IO
from uuid import uuid4

from models.checkpoints.code import code_digest
from models.checkpoints.files import sources_digest, write_whole
from models.checkpoints.record import Record
from models.spec import ModelSpec

_UPLOAD = ".upload-"
_UNPACKED = ".unpacked-"
_DRAFT, _ERASED = ".draft-", ".erased-"
_ORIGINALS, _REPORTS, _CACHE = "originals", "reports", "cache"
_DATASET_LEFTOVERS = (  # of killed processes: of an erasure, of a copy, of samples that were decoded again
    f"datasets/*/{_ERASED}*",
    f"datasets/*/{_ORIGINALS}/.*",
    f"datasets/*/*/{_CACHE}/*/{_DRAFT}*",
)
_UNLOCKED_S = 10.0  # between the creation of an upload's file and its lock
DAY_S = 86_400.0


def age_s(path: Path, now: float) -> float:
    """Return how many seconds ago a file was written; 0 if it does not exist."""
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:  # removed by its process
        return 0.0


def size(path: Path) -> int:
    """Return the size of a file, of a link itself, or of the files in a folder, in bytes; 0 if it does not exist."""
    try:
        status = path.lstat()
        return sum(map(size, path.iterdir())) if stat.S_ISDIR(status.st_mode) else status.st_size
    except FileNotFoundError:
        return 0


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; another process may be removing it, too. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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


def content_name(sha256: str) -> str:
    """Return the file name of the weights with that digest."""
    return f"{sha256[:12]}.pt"


class Storage:
    """The store folder `root`:

    checkpoints/MODEL/DIGEST.pt     weights
    checkpoints/MODEL/*.artifact    large artifacts of versions
    exports/MODEL/KEY.safetensors   networks in ONNX form
    jobs/ID/                        plot.png, resume-ATTEMPT.pt, tensorboard/
    recipes/KEY.json                schemas of the recipes
    datasets/MODEL/DIGEST/          dataset versions; cache/KEY/ in them: samples decoded by the code of that key
    datasets/MODEL/.draft-JOB/      dataset versions in the making
    datasets/MODEL/originals/DIGEST files that they were made of
    datasets/MODEL/reports/JOB.jsonl  refused rows of the file that an ingest job has read
    datasets/MODEL/reports/JOB/     thumbnails of some of them
    uploads/ID                      datasets that arrive in parts
    torchloop.db                    the database, unless it has a URL
    .upload-*, .unpacked-*          uploads in progress, files and folders
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def database(self) -> Path:
        """Return the path of the default database, SQLite."""
        return self.root / "torchloop.db"

    def checkpoints(self, model: str) -> Path:
        """Return the folder of a model's weights."""
        return self.root / "checkpoints" / model

    def checkpoint(self, model: str, sha256: str) -> Path:
        """Return the path of the weights with that digest. The same content has the same path."""
        return self.checkpoints(model) / content_name(sha256)

    def keep(self, model: str, content: bytes) -> Path:
        """Write weights atomically and return their path. Raises OSError."""
        path = self.checkpoint(model, hashlib.sha256(content).hexdigest())
        write_whole(content, path)
        return path

    def export(self, record: Record, spec: ModelSpec) -> Path:
        """Return the path of a checkpoint's export. It changes with all that the export depends on."""
        return self.export_by_code(record, code_digest(record.model, spec))

    def export_by_code(self, record: Record, code: str) -> Path:
        """Return the path of a checkpoint's export by code with that digest."""
        made_of = [record.sha256, dict(record.arguments), dict(record.artifacts), code]
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
        return self.root / "exports" / record.model / f"{key}.safetensors"

    def models(self) -> list[str]:
        """Return the models that have weights or exports."""
        return sorted({path.name for folder in ("checkpoints", "exports") for path in _visible(self.root / folder)})

    def weights(self, model: str) -> list[Path]:
        """Return the files of a model's weights and large artifacts."""
        return [path for path in _visible(self.checkpoints(model)) if not path.is_dir()]

    def exports(self, model: str) -> list[Path]:
        """Return the files of a model's exports."""
        return [path for path in _visible(self.root / "exports" / model) if not path.is_dir()]

    def recipes(self) -> Path:
        """Return the path of the cached schemas. It changes with the code that they are made by."""
        return self.root / "recipes" / f"{sources_digest('models', 'training')[:24]}-{version('pydantic')}.json"

    def dataset_models(self) -> list[str]:
        """Return the models that have files of datasets."""
        return sorted(path.name for path in _visible(self.root / "datasets"))

    def datasets(self, model: str) -> Path:
        """Return the folder of a model's dataset versions; drafts in it are hidden."""
        return self.root / "datasets" / model

    def dataset_versions(self, model: str) -> list[Path]:
        """Return the folders of a model's dataset versions."""
        return [path for path in _visible(self.datasets(model)) if path.name not in {_ORIGINALS, _REPORTS}]

    def dataset_draft(self, model: str, job_id: str) -> Path:
        """Return the folder of the dataset version that a job is making."""
        return self.datasets(model) / f"{_DRAFT}{job_id}"

    def dataset(self, model: str, sha256: str) -> Path:
        """Return the folder of the dataset version with that digest."""
        return self.datasets(model) / sha256

    def original(self, model: str, sha256: str) -> Path:
        """Return the path of a file that dataset versions were made of."""
        return self.datasets(model) / _ORIGINALS / sha256

    def originals(self, model: str) -> list[Path]:
        """Return the files that a model's dataset versions were made of."""
        return _visible(self.datasets(model) / _ORIGINALS)

    def caches(self, model: str, sha256: str) -> list[Path]:
        """Return the folders of decoded samples of a dataset version; their names are keys of the code."""
        return _visible(self.dataset(model, sha256) / _CACHE)

    def report(self, model: str, job_id: str) -> Path:
        """Return the path of the refused rows of the file that an ingest job has read: a JSON object a line."""
        return self.datasets(model) / _REPORTS / f"{job_id}.jsonl"

    def erased(self, folder: Path) -> Path:
        """Return a hidden path for a dataset version's folder that is to be removed."""
        return folder.with_name(f"{_ERASED}{uuid4().hex}")

    def refused_rows(self, model: str, job_id: str) -> Path:
        """Return the folder with thumbnails of rows that an ingest job has refused: ROW.png."""
        return self.datasets(model) / _REPORTS / job_id

    def incoming(self, upload_id: str) -> Path:
        """Return the path of a file that arrives in parts."""
        return self.root / "uploads" / upload_id

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs that have files."""
        reports = {path.stem for path in self.root.glob(f"datasets/*/{_REPORTS}/*")}
        drafts = {path.name.removeprefix(_DRAFT) for path in self.root.glob(f"datasets/*/{_DRAFT}*")}
        return sorted({folder.name for folder in self.root.glob("jobs/*")} | reports | drafts)

    def job_files(self, job_id: str) -> list[Path]:
        """Return the files of a job: plot, resume points, event files, report of refused rows, thumbnails, draft."""
        reports = [self.report(model, job_id) for model in self.dataset_models()]
        files = [path for folder in self._folders(job_id) for path in _files(folder)]
        return [*files, *(path for path in reports if path.exists())]

    def draft_files(self, job_id: str) -> list[Path]:
        """Return the files of the dataset version that a job is making."""
        return [path for folder in self._drafts(job_id) for path in _files(folder)]

    def resume_points(self, job_id: str) -> list[Path]:
        """Return the resume points of all attempts at a job, also half-written ones."""
        return [path for pattern in ("resume-*", ".resume-*") for path in self._job(job_id).glob(pattern)]

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

    def plot(self, job_id: str) -> Path:
        """Return the path of a job's plot."""
        return self._job(job_id) / "plot.png"

    def tensorboard(self, job_id: str) -> Path:
        """Return the folder of a job's event files."""
        return self._job(job_id) / "tensorboard"

    def resume_point(self, job_id: str, attempt: int) -> Path:
        """Return the path of the resume point that an attempt at a job writes."""
        return self._job(job_id) / f"resume-{attempt}.pt"

    def remove_resume_points(self, job_id: str) -> None:
        """Remove the resume points of all attempts at a job."""
        for path in self._job(job_id).glob("resume-*"):
            path.unlink(missing_ok=True)

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

    def _hidden(self, folder: str) -> Iterator[Path]:
        """Yield the files that write_whole has begun."""
        return (path for path in (self.root / folder).rglob(".*") if path.is_file())

    def _job(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id

    def _drafts(self, job_id: str) -> list[Path]:
        return [self.dataset_draft(model, job_id) for model in self.dataset_models()]
