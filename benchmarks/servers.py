"""The measured servers: install, start, monitor and stop each of them."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil

from benchmarks.load import Body, LoadError
from benchmarks.service_process import ROOT, NotStarted

PRETRAINED = ROOT / "models" / "pretrained"  # as models.catalog.PRETRAINED, which would import PyTorch
SEVEN = Body(content=(PRETRAINED / "seven.png").read_bytes(), media_type="image/png", labels=(7,))
TOOLS = ROOT / ".bench"
_HERE = Path(__file__).parent / "peers"
_SHARED = tuple(f"{name}=={version(name).split('+')[0]}" for name in ("torch", "numpy", "pillow"))
PEERS = {"litserve": ("litserve==0.2.19", *_SHARED), "mosec": ("mosec==0.9.8", *_SHARED)}
_START_S = 120
_STOP_S = 20


class NotInstalled(Exception):
    """The virtual environment of a peer could not be created."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """How to start a server, and what to send. The placeholders {python} and {port} of `command` are replaced.

    `needs`: the peer whose environment it runs in (default: this one). `ready`: another path that must return 200.
    """

    name: str
    command: tuple[str, ...]
    path: str
    body: Body = SEVEN
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = _HERE
    needs: str = ""
    ready: str = ""


def torchloop(store: Path, *, cwd: Path = ROOT, form: str = "auto") -> Server:
    """Return this service with two web processes and no worker, computing in a numeric form."""
    settings = {"STORE": str(store), "WORKER": "external", "WEB_PROCESSES": "2", "PORT": "{port}", "FORM": form}
    return Server(
        name="torchloop" if form == "auto" else f"torchloop, {form}",
        command=("{python}", "-m", "service"),
        path="/predict/mnist",
        environ={f"TORCHLOOP_{name}": value for name, value in settings.items()},
        cwd=cwd,
    )


def _uvicorn(name: str, *more: str) -> Server:
    command = ("{python}", "-m", "uvicorn", f"{name}:app", "--port", "{port}", "--workers", "2")
    quiet = ("--no-access-log", "--log-level", "warning")
    return Server(name=name, command=(*command, *quiet, *more), path="/predict")


def _mosec(name: str, batched: str) -> Server:
    flags = ("--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning", "--timeout", "10000")
    return Server(
        name=name,
        command=("{python}", "mosec_server.py", *flags),
        path="/inference",
        environ={"BATCHED": batched},
        needs="mosec",
    )


BARE = _uvicorn("bare", "--loop", "uvloop", "--http", "httptools", "--lifespan", "off")
HANDWRITTEN = _uvicorn("handwritten")
MOSEC = (_mosec("mosec", "1"), _mosec("mosec, no batches", "0"))
LITSERVE = Server(
    name="litserve",
    command=("{python}", "litserve_server.py", "{port}"),
    path="/predict",
    body=Body(
        content=json.dumps({"image_data": base64.b64encode(SEVEN.content).decode()}).encode(),
        media_type="application/json",
        labels=SEVEN.labels,
    ),
    needs="litserve",
)


def python(peer: str, pins: Sequence[str] = ()) -> str:
    """Return the interpreter of a peer's environment, created if it is missing or outdated. Raises NotInstalled.

    `pins`: requirements, if it is not a peer.
    """
    if not peer:
        return sys.executable
    folder = TOOLS / peer
    pins = pins or PEERS[peer]
    mark, wanted = folder / "installed.txt", "\n".join(pins)
    interpreter = str(folder / "bin" / "python")
    if mark.is_file() and mark.read_text() == wanted:
        return interpreter
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins])
    mark.write_text(wanted)
    return interpreter


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as err:
        lines = (getattr(err, "stderr", "") or str(err)).strip().splitlines()
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise NotInstalled(re.sub(r"\s+", " ", reasons[-1] if reasons else "no reason given")[:120]) from err


@dataclass(frozen=True)
class Running:
    """A running server. `start_s`: time from its start to its first correct response."""

    url: str
    start_s: float
    parent: psutil.Process

    def cpu_s(self) -> float:
        """Return the CPU time of its running processes so far, in s."""
        return sum(map(cpu_s, _tree(self.parent)))

    def resident_mb(self) -> list[float]:
        """Return the resident memory of each process, largest first; shared pages count in each."""
        return sorted((process.memory_info().rss / 1e6 for process in _tree(self.parent)), reverse=True)

    def settle(self) -> None:
        """Wait until it uses less than half a core, when all of its processes have started."""
        for _ in range(40):
            before = self.cpu_s()
            time.sleep(0.5)
            if self.cpu_s() - before < 0.25:
                return


@contextmanager
def started(server: Server) -> Iterator[Running]:
    """Run the server on a free port of 127.0.0.1 inside the context. Raises NotInstalled, NotStarted."""
    port, inherited = _free_port(), {k: v for k, v in os.environ.items() if not k.startswith("TORCHLOOP_")}
    filled = {"{python}": python(server.needs), "{port}": str(port)}
    environ = {name: filled.get(value, value) for name, value in server.environ.items()}
    environ = {**inherited, "CHECKPOINT": str(PRETRAINED / "mnist.pt"), **environ}
    with tempfile.TemporaryFile() as log:
        command = [filled.get(word, word) for word in server.command]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=server.cwd, env=environ, stdout=log, stderr=log)
        try:
            _wait(server, f"http://127.0.0.1:{port}", process, began)
            start_s = time.perf_counter() - began
            yield Running(f"http://127.0.0.1:{port}", start_s, psutil.Process(process.pid))
        except NotStarted as err:
            log.seek(0)
            output = log.read().decode(errors="replace").strip().splitlines()
            raise NotStarted(f"{err}: {output[-1] if output else 'no output'}"[:160]) from err
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait(server: Server, url: str, process: "subprocess.Popen[bytes]", began: float) -> None:
    good = re.compile(rf'"label":\s*{server.body.labels[0]}\b')
    headers = {"Content-Type": server.body.media_type}
    with httpx.Client(timeout=10) as client:
        while time.perf_counter() - began < _START_S:
            if process.poll() is not None:
                raise NotStarted(f"exited with status {process.returncode}")
            with suppress(httpx.TransportError):
                answer = client.post(url + server.path, content=server.body.content, headers=headers)
                if answer.status_code == httpx.codes.OK and good.search(answer.text) and _is_ready(client, url, server):
                    return
            time.sleep(0.02)
    raise NotStarted(f"no correct response within {_START_S} s")


def _is_ready(client: httpx.Client, url: str, server: Server) -> bool:
    return not server.ready or client.get(url + server.ready).status_code == httpx.codes.OK


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU time of a process so far, in s."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _tree(parent: psutil.Process) -> tuple[psutil.Process, ...]:
    return parent, *parent.children(recursive=True)


def in_turn(servers: Sequence[Server], turn: int) -> list[Server]:
    """Return the servers in the order of a round: each begins with another one, so that the order favours none."""
    first = turn % len(servers)
    return [*servers[first:], *servers[:first]]


def attempt(server: Server, faults: dict[str, str], action: Callable[[Server], None]) -> None:
    """Run `action`; a server that fails is recorded in `faults` and left out from then on."""
    if server.name in faults:
        return
    sys.stderr.write(f"serving: {server.name}\n")
    try:
        action(server)
    except NotInstalled as err:
        faults[server.name] = f"not installed: {err}"
    except NotStarted as err:
        faults[server.name] = f"not started: {err}"
    except (LoadError, psutil.Error) as err:
        faults[server.name] = f"not measured: {err}"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the parent, then kill the child processes that remain."""
    family = _tree(psutil.Process(process.pid)) if process.poll() is None else ()
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_STOP_S)
    for member in psutil.wait_procs(family, timeout=1)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def copy_checkout(folder: Path) -> None:
    """Copy the packages of the service to a new folder."""
    for name in ("models", "training", "service"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
