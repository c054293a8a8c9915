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

log = logging.getLogger(__name__)
_EXPORT_S = 120.0
_IDLE_S = 5.0  # how long the process is kept for the next export


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
        self._start_child = start_child
        self._turn = threading.Lock()
        self._child: Child | None = None
        self._idle: threading.Timer | None = None

    def get(self, model: str, path: Path, record: Record) -> Exported:
        """The export of the checkpoint at `path`, whose bytes are held against its record first.

        Raises CheckpointError where the checkpoint is broken, or nothing could be told of it.
        """
        read_verified(model, path, record)
        kept = exported.export_path(self._store, record)
        with self._turn:
            found = exported.read(kept)
            if found is None:
                answer = self._done(order(self._store, model, path, record))
                if answer["kind"] != "result":
                    raise CheckpointError(answer["detail"])
                found = exported.read(kept) or Exported(b"", np.empty(0), "the store cannot be written")
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        with self._turn:
            self._stop()

    def _done(self, message: Message) -> Message:
        """The child's last word on an order; it is kept for the next one, for a while."""
        if self._idle:
            self._idle.cancel()
        self._child = self._child or self._start_child()
        self._child.send(message)
        answers = self._child.messages(_EXPORT_S)
        if not answers:
            self._stop()
            return {"kind": "error", "detail": "the process that exports networks gave no answer; it is tried again"}
        self._idle = threading.Timer(_IDLE_S, self.close)
        self._idle.daemon = True
        self._idle.start()
        return answers[-1]

    def _stop(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._child:
            self._child.stop()
        self._child = self._idle = None
