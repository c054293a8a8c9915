"""Started training workers: `python -m service.worker` as a child process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.store.database import Store
from tests.fakes import ROOT

LEASE_S = 2


@contextmanager
def worker(
    store: Store,
    url: str,
    prefix: tuple[str, ...] = (),
    lease_s: float = LEASE_S,
    project: Path | None = None,
    artifacts: str = "",
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a training worker process with a short lease.

    It has a session of its own, see `running_server`.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    environ |= {"TORCHLOOP_STORE": str(store.folder), "TORCHLOOP_DATABASE_URL": url}
    environ |= {"TORCHLOOP_PROJECT": str(project or ""), "TORCHLOOP_ARTIFACTS": artifacts}
    command = [*prefix, sys.executable, "-m", "service.worker", "--lease-s", str(lease_s)]
    given = {name: value for name, value in environ.items() if value}
    process = subprocess.Popen(command, cwd=ROOT, env=given, start_new_session=True)
    try:
        yield process
    finally:
        with ExitStack() as stack:
            stack.callback(process.wait, 30)
            process.send_signal(signal.SIGCONT)
            process.terminate()
