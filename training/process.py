"""python -m training.process: torch subprocess of the worker or of a web process.

Reads orders as JSON lines from standard input, executes them one after the other, and writes messages as JSON lines to
standard output. It ends when its input does, because its parent has ended. SIGTERM ends it within a step, without
half-written files.
"""

_TERMINATED = 143  # exit status after SIGINT, SIGTERM or SIGHUP
_FAILED = 1

if __name__ == "__main__":  # the imports below take seconds
    import gc

    from models.signals import exit_at_signals

    exit_at_signals(_TERMINATED)
    gc.disable()  # until main

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import torch

from models import garbage
from models.catalog import specs
from models.groups import PEER_LOST
from models.messages import AnyOrder, Message, decode_order, encode_message
from models.signals import Interruption
from training.executor import Executor
from training.fitting.group import PeerLost

_NICENESS = 10  # serving goes first
_WAKE_S = 0.2  # a signal just before a blocking call is handled only after that call
_LAST_RESORT_S = 5.0  # from the first signal; the parent sends SIGKILL before that
_LAST_BREATH_S = 2.0  # from the end of the input to the forced end of this process


def main() -> int:
    """Execute orders until the input ends. Output of a recipe goes to standard error."""
    garbage.resume()
    interruption = Interruption(_LAST_RESORT_S)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:

        def tell(message: Message) -> None:
            interruption.check()
            # A separate line, even after output of user code that has no line end.
            out.write(b"\n" + encode_message(message) + b"\n")
            out.flush()

        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        os.nice(_NICENESS)
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
        try:
            with interruption:
                executor = Executor(tell, specs())
                for order in _orders():
                    executor.do(order)
        except PeerLost as err:
            sys.stderr.write(f"another node of this job is lost: {err}\n")
            sys.stderr.flush()
            os._exit(PEER_LOST)
        except Exception:  # noqa: BLE001 - the edge of a job: a regular exit would abort, as a thread reads the input
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(_FAILED)
        except KeyboardInterrupt:  # all is cleaned up by now; the interpreter's own shutdown would take a second
            os._exit(_TERMINATED)
    return 0


def _orders() -> Iterator[AnyOrder]:
    """Yield the orders. A thread reads them, so that the end of the input is also noticed during an order."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_BREATH_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with contextlib.suppress(queue.Empty):
            yield decode_order(lines.get(timeout=_WAKE_S))


if __name__ == "__main__":
    sys.exit(main())
