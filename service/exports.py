"""Exports of checkpoints: made once by a process that has torch, kept in the store, read by every web process."""

import logging
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np

from models import exported
from models.exported import Exported
from models.record import CheckpointError, Record, read_verified
from service.child import Child, Message, StartChild
from service.standby import Standby

log = logging.getLogger(__name__)
_EXPORT_S = 120.0
_IDLE_S = 5.0  # how long the process is kept for the next export
_SILENCE = {"kind": "error", "detail": "the process that exports networks gave no answer; it is tried again"}


def order(store: Path, model: str, path: Path, record: Record) -> Message:
    """What a child is to do."""
    to = exported.export_path(store, record)
    return {
        "op": "export",
        "model": model,
        "path": str(path.resolve()),
        "record": asdict(record),
        "to": str(to.resolve()),
    }


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
        kept = exported.export_path(self._store, record)
        with self._turn:
            found = exported.read(kept)
            if found is None:
                answer = self._standby.do(order(self._store, model, path, record)) or _SILENCE
                if answer["kind"] != "result":
                    raise CheckpointError(answer["detail"])
                found = exported.read(kept) or Exported(b"", np.empty(0), "the store cannot be written")
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        self._standby.close()
