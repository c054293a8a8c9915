"""python -m service.worker: the training process. Claims jobs, watches over the child that fits, registers the outcome.

Any number may run, on any machine that sees the database and the store folder. It never imports torch: all of that is
the child's, so that a crash or an out-of-memory kill of the fit never takes the worker along.
"""

import argparse
import os
import platform
import signal
import sys
import threading

from service.jobs.worker import LEASE_S, Worker
from service.logs import configure_logging
from service.settings import SettingsError, from_environment, refuse
from service.store.database import Store


def main() -> int:
    """Work until SIGINT or SIGTERM, or, embedded, until the parent is gone. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m service.worker", description="Do training jobs.")
    parser.add_argument(
        "--lease-s",
        type=float,
        default=LEASE_S,
        help="a worker silent for this long loses its job [6]",
    )
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="end when standard input does, as under python -m service",
    )
    options = parser.parse_args()
    try:
        settings = from_environment(os.environ)
    except SettingsError as err:
        return refuse(str(err), 2)
    configure_logging(settings.log_format)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    if options.embedded:
        threading.Thread(target=_set_at_end_of_input, args=(stopping,), daemon=True).start()
    name = f"{platform.node()}-{os.getpid()}"
    store = Store(settings.store, settings.database_url)
    Worker(store, settings.data, name, device=settings.device, lease_s=options.lease_s, stopping=stopping).run()
    store.close()
    return 0


def _set_at_end_of_input(stopping: threading.Event) -> None:
    sys.stdin.buffer.read()
    stopping.set()


if __name__ == "__main__":
    sys.exit(main())
