"""python -m training.process: what takes torch, for the worker or the web process that started it.

Orders come as JSON lines on the standard input and are done one after the other; what there is to tell goes out as
JSON lines on the standard output. When the input ends, so does this process: its parent is gone. SIGTERM ends it
within a step, with nothing half-written left behind.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator

import torch

from models.catalog import specs
from models.messages import Order
from training.executor import Child

_TERMINATED = 128 + signal.SIGTERM
_NICENESS = 10  # serving goes first
_LAST_BREATH_S = 2.0  # between the end of the input and the end of this process, whatever it is doing


def main() -> int:
    """Do orders until the input ends. Whatever a recipe prints goes to the standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        os.nice(_NICENESS)
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        signal.signal(signal.SIGTERM, _end)
        child = Child(out, specs())
        try:
            for order in _orders():
                child.do(order)
        except SystemExit:  # everything was tidied on the way here; the interpreter's own end would take a second
            os._exit(_TERMINATED)
    return 0


def _end(*_: object) -> None:
    sys.exit(_TERMINATED)


def _orders() -> Iterator[Order]:
    """The input's lines. A thread reads them, so that the input's end is seen in the middle of an order too."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_BREATH_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


if __name__ == "__main__":
    sys.exit(main())
