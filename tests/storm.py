"""Run a command that sends signals to itself while it imports its modules.

python tests/storm.py SEED COUNT MODULE [ARGUMENT ...]: at import number COUNT after the command has installed its first
handlers, send a random number of signals, 1 to 20, of all kinds: some at once, the others at random distances.
"""

import os
import random
import runpy
import signal
import sys
import threading
import time
from importlib.abc import MetaPathFinder

SEED, COUNT = int(sys.argv[1]), int(sys.argv[2])
KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Storm(MetaPathFinder):
    """Finds nothing: only counts the modules that are looked for."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)  # noqa: S311
        self._left = COUNT

    def find_spec(self, *_: object) -> None:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL or self._left == 0:
            return
        self._left -= 1
        if self._left == 0:
            kinds = [self._random.choice(KINDS) for _ in range(self._random.randint(1, 20))]
            at_once = self._random.randint(1, len(kinds))
            distances = [self._random.uniform(0, 0.02) for _ in kinds[at_once:]]
            threading.Thread(target=_send, args=(kinds[at_once:], distances), daemon=True).start()
            for kind in kinds[:at_once]:
                os.kill(os.getpid(), kind)


def _send(kinds: list[signal.Signals], distances: list[float]) -> None:
    for kind, distance in zip(kinds, distances, strict=True):
        time.sleep(distance)
        os.kill(os.getpid(), kind)


sys.path[0] = ""
sys.argv = sys.argv[3:]
sys.meta_path.insert(0, Storm())
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
