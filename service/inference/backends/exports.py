"""Exports of checkpoints: shipped with them, or written once by the torch subprocess to the store; read by every web
process.
"""

import contextlib
import logging
import threading
from pathlib import Path

from models.catalog import PRETRAINED
from models.checkpoints import onnx_file
from models.checkpoints.onnx_file import Exported
from models.checkpoints.record import Record, verify
from models.checkpoints.shipped import shipped_path
from models.checkpoints.storage import Storage
from models.coding import Coder
from models.errors import CheckpointError, ObjectsUnavailable
from models.messages import Export, Failed
from models.spec import ModelSpec
from service.execution.on_demand import Standby
from service.execution.process import Child, StartChild

log = logging.getLogger(__name__)
_EXPORT_S = 120.0
_IDLE_S = 5.0  # how long the process is kept for the next export
_SILENCE = "the process that exports networks gave no answer; it is tried again"


class Exports:
    """Read the export of a checkpoint, or have it written. Callers in several threads take turns."""

    def __init__(self, storage: Storage, start_child: StartChild = Child, shipped: Path = PRETRAINED) -> None:
        self._storage = storage
        self._shipped = shipped
        self._turn = threading.Lock()
        self._standby = Standby(start_child, answer_s=_EXPORT_S, idle_s=_IDLE_S)

    def get(self, model: str, spec: ModelSpec, path: Path, record: Record, coder: Coder | None = None) -> Exported:
        """Return the export of the checkpoint at `path`, after verifying its digest.

        Raises CheckpointError if the checkpoint is broken, or the subprocess did not answer.
        """
        verify(model, path, record)
        if found := onnx_file.read(shipped_path(self._shipped, spec, record, coder)):
            return found
        kept = self._storage.export(record, spec)
        found = self._kept(kept)  # not behind an export that is being written
        if found is not None:
            return found
        with self._turn:
            found = onnx_file.read(kept)
            if found is None:
                order = Export(model=model, path=path.resolve(), record=record, store=self._storage.location())
                match self._standby.do(order):
                    case None:
                        raise CheckpointError(_SILENCE)
                    case Failed(detail=detail):
                        raise CheckpointError(detail)
                found = onnx_file.read(kept) or Exported(b"", refusal="the store cannot be written")
        return found

    def _kept(self, path: Path) -> Exported | None:
        """Return the export at `path` in the store, if there is one; in an object store, if it can be reached."""
        found = onnx_file.read(path)
        if found is None and self._storage.copies is not None:
            with contextlib.suppress(ObjectsUnavailable, CheckpointError):
                found = onnx_file.read(self._storage.newest(path))
        return found

    def close(self) -> None:
        """Stop the subprocess, if there is one. One that is exporting ends soon after that, or with this process."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._standby.close()
        finally:
            self._turn.release()
