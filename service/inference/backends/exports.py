"""Exports of checkpoints: made once by a process that has torch, kept in the store, read by every web process."""

import logging
import threading
from pathlib import Path

import numpy as np

from models.checkpoints import onnx_file
from models.checkpoints.onnx_file import Exported
from models.checkpoints.record import Record, read_verified
from models.checkpoints.storage import export_path
from models.errors import CheckpointError
from models.messages import order
from service.execution.on_demand import Standby
from service.execution.process import Child, StartChild

log = logging.getLogger(__name__)
_EXPORT_S = 120.0
_IDLE_S = 5.0  # how long the process is kept for the next export
_SILENCE = {"kind": "error", "detail": "the process that exports networks gave no answer; it is tried again"}


class Exports:
    """Finds the export of a checkpoint, or has it made. Callers in several threads take turns."""

    def __init__(self, store: Path, start_child: StartChild = Child) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._standby = Standby(start_child, answer_s=_EXPORT_S, idle_s=_IDLE_S)

    def get(self, model: str, path: Path, record: Record) -> Exported:
        """The export of the checkpoint at `path`, whose bytes are held against its record first.

        Raises CheckpointError where the checkpoint is broken, or nothing could be told of it.
        """
        read_verified(model, path, record)
        kept = export_path(self._store, record)
        with self._turn:
            found = onnx_file.read(kept)
            if found is None:
                answer = self._standby.do(order(self._store, model, path, record)) or _SILENCE
                if answer["kind"] != "result":
                    raise CheckpointError(answer["detail"])
                found = onnx_file.read(kept) or Exported(b"", np.empty(0), "the store cannot be written")
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        self._standby.close()
