"""python -m benchmarks.soak --minutes 10: soak test with load, version changes, training jobs and killed processes.

The service (two web processes, a worker, a temporary store) gets predictions for every model with every media type,
and GET requests; meanwhile versions are registered, promoted and rolled back, jobs train, and web processes and the
worker are killed with SIGKILL. Only requests that a killed process was answering may fail; no acknowledged job or
version may be lost. The exit status is 1 if an aim is missed.

One web process is never killed, so that its memory is recorded over the whole run. A worker is not killed in a job's
last attempt: after three attempts a job fails, as designed.
"""

import argparse
import http.client
import io
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
import psutil
import torch

from benchmarks.service_process import ROOT, NotStarted, running_service
from benchmarks.soak_report import Asked, Kill, Resident, Seen, missed, table
from models.catalog import PRETRAINED
from models.checkpoints import state_dict

LOG = ROOT / ".bench" / "soak.log"  # the service's log
_CALLERS = 4
_PAUSE_S = 0.04  # mean pause of a caller between two requests
_IDLE_S = 2.0  # longest idle time of a reused connection; the service closes it after 5 s
_REQUESTS = 100  # requests per connection; a new connection may reach another process
_TIMEOUT_S = 300.0  # an upload is checked and exported at low priority; other late requests get 504
_CHANGE_S = 2.0
_REGISTER_S = 15.0
_JOB_S = 8.0
_KILL_S = (6.0, 14.0)
_END_S = 600.0  # timeout for the jobs to finish
JSON = {"Content-Type": "application/json"}
MODELS = ["regressor", "classifier", "mnist"]
JOBS: list[dict[str, Any]] = [
    {"model": "regressor", "config": {"epochs": 200}},
    {"model": "classifier", "config": {"epochs": 200}, "promote": "always"},
    {"model": "mnist", "config": {"dataset": "digits", "epochs": 1, "limit": 400}, "promote": "never"},
]


@dataclass
class Soak:
    """One run: the service, the recorded events, and the signal to stop."""

    address: str
    service: psutil.Process
    seen: Seen = field(default_factory=Seen)
    stop: threading.Event = field(default_factory=threading.Event)

    def below(self, module: str) -> list[psutil.Process]:
        """Return the service's child processes that run `python -m module`, oldest first."""
        found = []
        for process in self.service.children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[1:3] == ["-m", module]:
                    found.append(process)
        return sorted(found, key=psutil.Process.create_time)


class Caller:
    """HTTP client with one connection at a time; it records every request."""

    def __init__(self, soak: Soak) -> None:
        self._soak = soak
        self._connection: http.client.HTTPConnection | None = None
        self._pid = 0
        self._left = 0
        self._used = 0.0

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        good: Collection[int] = (200,),
    ) -> tuple[int, bytes] | None:
        """Send a request. Returns status and body of the response; None if there was none."""
        began = time.monotonic()
        connection = self._open()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as err:
            broken = isinstance(err, ConnectionError | http.client.IncompleteRead)
            self._note(began, f"{type(err).__name__} {method} {path.partition('?')[0]}", broken=broken)
            self.close()
            return None
        self._note(began, None if response.status in good else f"{response.status} {method} {path}")
        self._left, self._used = self._left - 1, time.monotonic()
        if not self._pid:
            self._pid = self._server_pid(connection)
        if not self._left or response.will_close:
            self.close()
        return response.status, content

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        if time.monotonic() > self._used + _IDLE_S:
            self.close()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._soak.address, timeout=_TIMEOUT_S)
            self._pid, self._left = 0, _REQUESTS
        return self._connection

    def _server_pid(self, connection: http.client.HTTPConnection) -> int:
        """Return the pid of the web process that has this connection; 0 if there is none, for example after it died."""
        if connection.sock is None:
            return 0
        port = connection.sock.getsockname()[1]
        for process in self._soak.below("service.serve"):
            with suppress(psutil.Error):
                if any(end.raddr and end.raddr.port == port for end in process.net_connections("tcp")):
                    return process.pid
        return 0

    def _note(self, began: float, fault: str | None, *, broken: bool = False) -> None:
        self._soak.seen.asked.append(Asked(began, time.monotonic(), self._pid, fault, broken))


def soak(minutes: float, data: Path) -> Seen:
    """Run the soak test and return the recorded events."""
    settings = {
        "TORCHLOOP_WEB_PROCESSES": "2",
        "TORCHLOOP_WORKER": "embedded",
        "TORCHLOOP_DATA": str(data.resolve()),
    }
    LOG.parent.mkdir(exist_ok=True)
    with (
        LOG.open("w") as log,
        running_service(settings, log=log, stop_s=60) as (url, service),
        ThreadPoolExecutor(_CALLERS + 5) as pool,
    ):
        run = Soak(url.removeprefix("http://"), psutil.Process(service.pid))
        activities: list[Callable[[Soak], None]] = [change, register, train, kill, watch]
        futures = [pool.submit(_while_running, run, activity) for activity in activities]
        futures += [pool.submit(_while_running, run, predict, number) for number in range(_CALLERS)]
        run.stop.wait(minutes * 60)
        run.stop.set()
        for future in futures:
            future.result()
        follow_up(run)
        run.seen.ended = service.poll()
    return run.seen


def _while_running(run: Soak, activity: Callable[..., None], *words: Any) -> None:
    """Run an activity; if it fails, stop the whole run."""
    try:
        activity(run, *words)
    finally:
        run.stop.set()


def requests() -> list[tuple[str, str, bytes | None, dict[str, str]]]:
    """Return the requests, each sent equally often."""
    seven = (PRETRAINED / "seven.png").read_bytes()
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    array = io.BytesIO()
    np.save(array, np.array([[2.0, 1.5], [0.0, -1.0]], np.float32))
    npy = {"Content-Type": "application/x-npy"}
    reads = ["/models", "/models/mnist", "/models/mnist/promotions", "/models/regressor/versions", "/jobs?limit=5"]
    return [
        ("POST", "/predict/mnist", seven, {"Content-Type": "image/png"}),
        ("POST", "/predict/mnist", 2 * (part + seven + b"\r\n") + b"--b--\r\n",
         {"Content-Type": "multipart/form-data; boundary=b"}),
        ("POST", "/predict/mnist?version=1", seven, {}),
        ("POST", "/predict/regressor", b'{"inputs": [[0.5], [1.0]]}', JSON),
        ("POST", "/predict/regressor?version=1", b'{"inputs": [[0.5]]}', JSON),
        ("POST", "/predict/classifier", array.getvalue(), npy),
        ("POST", "/predict/classifier", array.getvalue(), {**npy, "Accept": "application/x-npy"}),
        *(("GET", path, None, {}) for path in [*reads, "/health/live", "/health/ready", "/metrics"]),
    ]  # fmt: skip


def predict(run: Soak, number: int) -> None:
    """Send random requests until the run stops."""
    chance, caller, choices = random.Random(number), Caller(run), requests()  # noqa: S311
    while not run.stop.wait(chance.uniform(0, 2 * _PAUSE_S)):
        caller.ask(*chance.choice(choices))
    caller.close()


def change(run: Soak) -> None:
    """Promote and roll back versions. A job may promote at the same time: 409."""
    caller, chance = Caller(run), random.Random("change")  # noqa: S311
    while not run.stop.wait(_CHANGE_S):
        model = chance.choice(MODELS)
        known = _versions(caller, model)
        action, body = "rollback", b"{}"
        if known and chance.random() < 0.6:
            action, body = "promote", orjson.dumps({"version": chance.choice(known)})
        answer = caller.ask("POST", f"/models/{model}/{action}", body, JSON, good=(200, 409))
        run.seen.changes += answer is not None and answer[0] == 200
    caller.close()


def _versions(caller: Caller, model: str) -> list[int]:
    answer = caller.ask("GET", f"/models/{model}/versions")
    if answer is None or answer[0] != 200:
        return []
    return [version["version"] for version in orjson.loads(answer[1])["versions"]]


def register(run: Soak) -> None:
    """Register versions of the regressor: the shipped weights with Gaussian noise of 0.001."""
    caller, generator = Caller(run), torch.Generator().manual_seed(1)
    shipped = torch.load(PRETRAINED / "regressor.pt", weights_only=True)
    while not run.stop.is_set():
        state = {key: value + 1e-3 * torch.randn(value.shape, generator=generator) for key, value in shipped.items()}
        answer = caller.ask("POST", "/models/regressor/versions", state_dict.to_bytes(state), good=(201,))
        if answer is not None and answer[0] == 201:
            version = orjson.loads(answer[1])
            run.seen.versions["regressor", version["version"]] = version["sha256"]
        run.stop.wait(_REGISTER_S)
    caller.close()


def train(run: Soak) -> None:
    """Queue jobs of each kind in turn; retry with the same Idempotency-Key if there was no response."""
    caller, number = Caller(run), 0
    while not run.stop.is_set():
        headers = {**JSON, "Idempotency-Key": uuid4().hex}
        answer = None
        while answer is None:
            answer = caller.ask("POST", "/train", orjson.dumps(JOBS[number % len(JOBS)]), headers, good=(202,))
        if answer[0] == 202:
            run.seen.jobs[orjson.loads(answer[1])["id"]] = "queued"
        number += 1
        run.stop.wait(_JOB_S)
        while not run.stop.is_set() and len(_listed(caller, "queued")) > 2:
            run.stop.wait(1)
        caller.close()


def _listed(caller: Caller, state: str) -> list[dict[str, Any]]:
    answer = caller.ask("GET", f"/jobs?state={state}")
    jobs: list[dict[str, Any]] = orjson.loads(answer[1])["jobs"] if answer is not None and answer[0] == 200 else []
    return jobs


def kill(run: Soak) -> None:
    """Send SIGKILL to the worker or to the younger web process, once both web processes answer again."""
    caller, chance = Caller(run), random.Random("kill")  # noqa: S311
    while not run.stop.wait(chance.uniform(*_KILL_S)):
        module = chance.choice(["service.serve", "service.worker"])
        victims = run.below(module)
        spent = any(job["attempt"] > 1 for job in _listed(caller, "running"))
        caller.close()
        too_few = module == "service.serve" and (len(victims) < 2 or not _listens(victims[-1]))
        if not victims or too_few or (module == "service.worker" and spent):
            continue
        run.seen.kills.append(Kill(time.monotonic(), victims[-1].pid, module))
        victims[-1].send_signal(signal.SIGKILL)


def _listens(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(end.status == psutil.CONN_LISTEN for end in process.net_connections("tcp"))
    return False


def watch(run: Soak) -> None:
    """Record the memory of the web processes every second."""
    while not run.stop.wait(1):
        for process in run.below("service.serve"):
            with suppress(psutil.Error):
                mib = process.memory_info().rss / 2**20
                run.seen.resident.append(Resident(time.monotonic(), process.pid, mib))


def follow_up(run: Soak) -> None:
    """After the load, record how each job ended, and whether each version has the checksum that was returned."""
    caller, deadline = Caller(run), time.monotonic() + _END_S
    for job in run.seen.jobs:
        while run.seen.jobs[job] not in {"succeeded", "failed", "cancelled"} and time.monotonic() < deadline:
            answer = caller.ask("GET", f"/jobs/{job}", good=(200, 404))
            found = orjson.loads(answer[1]) if answer is not None and answer[0] == 200 else {"state": "lost"}
            run.seen.jobs[job] = found["state"]
            _add_version(run, caller, found)
            time.sleep(0.2)
    for (model, version), digest in run.seen.versions.items():
        answer = caller.ask("GET", f"/models/{model}/versions/{version}/checkpoint", good=(200, 404))
        if answer is None or answer[0] != 200 or sha256(answer[1]).hexdigest() != digest:
            run.seen.lost_versions.append((model, version))
    caller.close()


def _add_version(run: Soak, caller: Caller, job: Mapping[str, Any]) -> None:
    """Record the version of a succeeded job."""
    if job["state"] == "succeeded":
        answer = caller.ask("GET", f"/models/{job['model']}/versions/{job['version']}", good=(200, 404))
        content = orjson.loads(answer[1]) if answer is not None and answer[0] == 200 else {"sha256": "none"}
        run.seen.versions[job["model"], job["version"]] = content["sha256"]


def run_for(words: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Run a soak test.")
    parser.add_argument("--minutes", type=float, default=10.0, help="duration in minutes (default %(default)s)")
    data = Path(os.environ.get("TORCHLOOP_DATA") or "data")
    parser.add_argument("--data", type=Path, default=data, help="folder of datasets (default TORCHLOOP_DATA or data)")
    given = parser.parse_args(words)
    try:
        seen = soak(given.minutes, given.data)
    except NotStarted as err:
        raise SystemExit(f"soak: {err}") from err
    sys.stdout.write(f"soak\n{table(seen, given.minutes * 60)}\n")
    if not missed(seen):
        return 0
    sys.stdout.write(f"  log of the service: {LOG.relative_to(ROOT)}\n")
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # raise, as Ctrl-C does, so that the service is stopped
    sys.exit(run_for())
