"""python -m benchmarks.flame FILE: write a flame graph (SVG) of one web process under load.

wrk sends requests over 64 connections; py-spy, installed in a separate environment, samples the process 200 times per
second. Only CPU time counts. On Linux, py-spy needs root or the permission to trace processes.
"""

import argparse
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.servers import SEVEN, python, started, torchloop

_CONNECTIONS, _SECONDS, _RATE = 64, 15, 200


def main_of(words: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flame", description=__doc__.partition(":")[2].strip())
    parser.add_argument("file", type=Path, help="output file (SVG)")
    file = parser.parse_args(words).file
    if not load.is_installed():
        sys.stderr.write(f"{load.MISSING.strip()}\n")
        return 1
    spy = Path(python("py-spy", ["py-spy==0.4.3"])).with_name("py-spy")
    with TemporaryDirectory() as store, ExitStack() as stack:
        with started(torchloop(Path(store))):
            pass  # the first start writes the store
        running = stack.enter_context(started(torchloop(Path(store))))
        running.settle()
        web = next(process for process in running.parent.children() if "service.serve" in process.cmdline())
        ask = threading.Thread(target=_ask, args=(running.url,))
        ask.start()
        recorded = subprocess.run(
            [
                spy,
                "record",
                "--pid",
                str(web.pid),
                "--rate",
                str(_RATE),
                "--duration",
                str(_SECONDS),
                "--nonblocking",
                "--output",
                file,
            ],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        ask.join()
    if recorded.returncode == 0:
        file.write_text(titled(file.read_text()))
    return recorded.returncode


def titled(svg: str) -> str:
    """Return the SVG with another title than py-spy's default, its command line."""
    shown = f"one web process, {_CONNECTIONS} connections, POST of a 28x28 PNG"
    return re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{shown}", svg)


def _ask(url: str) -> None:
    load.send(url, SEVEN, ("/predict/mnist",), connections=_CONNECTIONS, seconds=_SECONDS + 2)


if __name__ == "__main__":
    sys.exit(main_of())
