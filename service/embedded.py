"""The training worker beside the web process: started, restarted when it dies, ended with it."""

import logging
import subprocess
import sys
import threading

log = logging.getLogger(__name__)
_RESTART_S = 1.0
_STOP_S = 10.0


class EmbeddedWorker:
    """`python -m service.worker` as a child, watched by a thread. It sees the same environment.

    The child's input is a pipe that ends with this process, however that ends: a worker is never left behind.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="embedded-worker", daemon=True)

    def start(self) -> None:
        """Start it, and keep it running."""
        self._thread.start()

    def stop(self) -> None:
        """End it in good order: the job in hand goes back to the queue."""
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._thread.join(_STOP_S)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            command = [sys.executable, "-m", "service.worker", "--embedded"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)  # as in child.py
            status = self._process.wait()
            if not self._stopping.is_set():
                log.error("worker ended, it is started again", extra={"exit": status})
                self._stopping.wait(_RESTART_S)
