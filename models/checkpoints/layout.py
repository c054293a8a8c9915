"""Layout of the store folder: the name of each file and folder in it. No other module joins these names."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from models.checkpoints.code import code_digest
from models.checkpoints.files import sources_digest
from models.checkpoints.record import Record
from models.spec import ModelSpec

DRAFT, ERASED = ".draft-", ".erased-"
ORIGINALS, REPORTS, CACHE = "originals", "reports", "cache"


def content_name(sha256: str) -> str:
    """Return the file name of the weights with that digest."""
    return f"{sha256[:12]}.pt"


class Layout:
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

    def export(self, record: Record, spec: ModelSpec) -> Path:
        """Return the path of a checkpoint's export. It changes with all that the export depends on."""
        return self.export_by_code(record, code_digest(record.model, spec))

    def export_by_code(self, record: Record, code: str) -> Path:
        """Return the path of a checkpoint's export by code with that digest."""
        made_of = [record.sha256, dict(record.arguments), dict(record.artifacts), code]
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
        return self.root / "exports" / record.model / f"{key}.safetensors"

    def recipes(self) -> Path:
        """Return the path of the cached schemas. It changes with the code that they are made by."""
        return self.root / "recipes" / f"{sources_digest('models', 'training')[:24]}-{version('pydantic')}.json"

    def datasets(self, model: str) -> Path:
        """Return the folder of a model's dataset versions; drafts in it are hidden."""
        return self.root / "datasets" / model

    def dataset_draft(self, model: str, job_id: str) -> Path:
        """Return the folder of the dataset version that a job is making."""
        return self.datasets(model) / f"{DRAFT}{job_id}"

    def dataset(self, model: str, sha256: str) -> Path:
        """Return the folder of the dataset version with that digest."""
        return self.datasets(model) / sha256

    def original(self, model: str, sha256: str) -> Path:
        """Return the path of a file that dataset versions were made of."""
        return self.datasets(model) / ORIGINALS / sha256

    def report(self, model: str, job_id: str) -> Path:
        """Return the path of the refused rows of the file that an ingest job has read: a JSON object a line."""
        return self.datasets(model) / REPORTS / f"{job_id}.jsonl"

    def erased(self, folder: Path) -> Path:
        """Return a hidden path for a dataset version's folder that is to be removed."""
        return folder.with_name(f"{ERASED}{uuid4().hex}")

    def refused_rows(self, model: str, job_id: str) -> Path:
        """Return the folder with thumbnails of rows that an ingest job has refused: ROW.png."""
        return self.datasets(model) / REPORTS / job_id

    def incoming(self, upload_id: str) -> Path:
        """Return the path of a file that arrives in parts."""
        return self.root / "uploads" / upload_id

    def plot(self, job_id: str) -> Path:
        """Return the path of a job's plot."""
        return self._job(job_id) / "plot.png"

    def tensorboard(self, job_id: str) -> Path:
        """Return the folder of a job's event files."""
        return self._job(job_id) / "tensorboard"

    def resume_point(self, job_id: str, attempt: int) -> Path:
        """Return the path of the resume point that an attempt at a job writes."""
        return self._job(job_id) / f"resume-{attempt}.pt"

    def _job(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id
