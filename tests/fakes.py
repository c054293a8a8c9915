"""A model small enough to know its answers by heart, and servers to talk to."""

import io
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from models import catalog
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.messages import Message
from models.outputs import Value, describe_values, values
from models.spec import Entry, ModelSpec
from service.execution.process import Child
from training import executor
from training.report.live_plot import EVERY_S

ROOT = Path(__file__).parents[1]
_ASKED = TemporaryDirectory()  # what one server here had made by a process with torch, the next need not


class Line(nn.Module):
    """slope * x + offset, elementwise on (N, 1)."""

    def __init__(self, *, slope: float = 2.0, offset: float = 1.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([float(slope)]))
        self.offset = nn.Parameter(torch.tensor([float(offset)]))

    def forward(self, samples: Tensor) -> Tensor:
        return samples * self.slope + self.offset


LINE = ModelSpec(
    summary="2x + 1",
    network=Line,
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)),
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=np.array([[3.0]], dtype=np.float32),
)


def save_line(folder: Path, name: str = "line", slope: float = 2.0, offset: float = 1.0) -> Path:
    """A checkpoint of LINE under `folder`."""
    path = folder / f"{name}.pt"
    sha256 = state_dict.save_weights(Line(slope=slope, offset=offset).state_dict(), path)
    state_dict.save_record(Record(model=name, sha256=sha256), path)
    return path


class InProcess(Child):
    """The process that does what takes torch, without the process: its orders are done at once, by the same code."""

    def __init__(self, specs: Mapping[str, ModelSpec] | None, plot_every_s: float = EVERY_S) -> None:
        self.exit = None
        self._out = io.StringIO()
        self._does = executor.Child(self._out, catalog.specs() if specs is None else specs, plot_every_s)

    def send(self, order: Message) -> None:
        self._does.do(order)

    def messages(self, timeout_s: float) -> list[Message]:  # noqa: ARG002
        lines = self._out.getvalue().splitlines()
        self._out.seek(0)
        self._out.truncate()
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        pass


@contextmanager
def running_server(
    settings: Mapping[str, str], cwd: Path = ROOT, command: Sequence[str | Path] = (sys.executable, "-m", "service")
) -> Iterator[str]:
    """The URL of a really started `python -m service` on a free port; it is stopped at the end.

    Unless the settings say otherwise it trains nothing, and its store is gone with it.
    """
    with TemporaryDirectory() as folder:
        settings = {"TORCHLOOP_STORE": folder, **settings}
        store = Path(settings["TORCHLOOP_STORE"])
        shutil.copytree(_ASKED.name, store, dirs_exist_ok=True)
        with _started(settings, cwd, command) as url:
            shutil.copytree(store / "exports", Path(_ASKED.name) / "exports", dirs_exist_ok=True)
            yield url
            if (store / "recipes").exists():
                shutil.copytree(store / "recipes", Path(_ASKED.name) / "recipes", dirs_exist_ok=True)


@contextmanager
def _started(settings: Mapping[str, str], cwd: Path, command: Sequence[str | Path]) -> Iterator[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**inherited, "TORCHLOOP_PORT": "0", "TORCHLOOP_WORKER": "external", **settings},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_pump, args=(process, lines))
    reader.start()
    try:
        yield _address(lines)
    finally:
        process.terminate()
        process.wait(timeout=30)
        reader.join()


def _pump(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert process.stderr is not None
    with process.stderr as stream:
        for line in stream:
            lines.put(line)
    lines.put("")  # the end


def _address(lines: "queue.Queue[str]") -> str:
    seen = []
    while line := lines.get(timeout=60):
        seen.append(line)
        if found := re.search(r"running on (http://[\d.:]+)", line):
            return found[1]
    raise AssertionError("the server did not start:\n" + "".join(seen))
