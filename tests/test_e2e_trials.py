"""Trials on a running service with two web processes: what its callers see."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import httpx
import psutil
import pytest
import torch
from torch import nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from service.delivery.nodes import Nodes
from service.delivery.registry import Registry
from service.store.database import Store
from tests.fakes import running_server
from tests.templates import migrated
from tests.trial_traffic import is_chosen
from tests.waiting import until

pytestmark = pytest.mark.slow

SPEC = """
import numpy as np
from models.outputs import Value, describe_values
from models.spec import Entry, ModelSpec, by_name

def checked(outputs):
    if (outputs > 1000).any():
        raise ArithmeticError("too much")
    return outputs.astype(np.float32)

SPEC = ModelSpec(
    summary="a multiple, up to 1000",
    network=by_name("models.times_network:Times"),
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)),
    postprocess=checked,
    describe=describe_values,
    prediction=Value,
    example=np.array([[3.0]], dtype=np.float32),
)
"""
NETWORK = """
import torch
from torch import nn

class Times(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, samples):
        return samples * self.factor
"""
KEYS = [f"user-{number}" for number in range(40)]
PLAIN, TOO_MUCH = 1.0, 50.0  # samples; the second is too much for a candidate that multiplies by 100
LIVE, GOOD, FAILING = 1, 2, 3  # versions


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))


def _register(store: Store) -> None:
    registry = Registry(store)
    for number, factor in enumerate((2.0, 3.0, 100.0), 1):
        path = store.folder / f"checkpoints/times/{number}.pt"
        sha256 = state_dict.save_weights(_Times(factor).state_dict(), path)
        with store.write() as connection:
            registry.add(connection, "times", path, Record(model="times", sha256=sha256), job=None, now=1.0)
            if number == LIVE:
                registry.promote(connection, "times", number, by="test", reason="", now=1.0)


class Service:
    """The running service; each call of `ask` comes over a new connection, so to any of the processes."""

    def __init__(self, url: str, store: Store) -> None:
        self._store = store
        self._client = httpx.Client(base_url=url, headers={"Connection": "close"}, timeout=60)

    def ask(self, key: str, x: float = PLAIN) -> tuple[int, int | None]:
        """The status of an answer, and the version that gave it."""
        answer = self._send("POST", "/predict/times", json={"inputs": [[x]]}, headers={"X-User": key})
        version = answer.headers.get("x-model-version")
        return answer.status_code, version and int(version)

    def versions(self, keys: Sequence[str] = KEYS, times: int = 3) -> dict[str, set[int | None]]:
        """The versions that answered each key."""
        return {key: {self.ask(key)[1] for _ in range(times)} for key in keys}

    def call(self, method: str, path: str, **body: Any) -> Any:
        """The answer of another route."""
        answer = self._send(method, path, json=body or None)
        assert answer.is_success, answer.text
        return answer.json()

    def metrics(self) -> str:
        """The metrics of all processes."""
        return self._send("GET", "/metrics").text

    def open(self, **order: Any) -> Any:
        """Open a trial, and wait until all processes follow it: they load the candidate first."""
        trial = self.call("POST", "/models/times/trial", **order)
        self.followed(trial)
        return trial

    def followed(self, trial: Any) -> None:
        """Wait until all processes follow the stage of a trial, or its end."""
        stage = trial["stage"] if trial["finished_at"] is None else None
        until(lambda: [node.trials.get(trial["id"]) for node in Nodes(self._store).all()] == [stage])

    def advance(self) -> Any:
        """Go to the next stage, and wait until all processes follow it."""
        trial = self.call("POST", "/models/times/trial/advance")
        self.followed(trial)
        return trial

    def trial(self) -> Any:
        """The last trial, with its evidence."""
        return self.call("GET", "/models/times/trial")

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send a request, and again if the process that took it was killed."""
        while True:
            with suppress(httpx.TransportError):
                return self._client.request(method, path, **content)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder, project = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("project")
    for name, text in (("times", SPEC), ("times_network", NETWORK)):
        (project / "models").mkdir(exist_ok=True)
        (project / "models" / f"{name}.py").write_text(text)
    store = Store(migrated(folder))
    _register(store)
    settings = {"STORE": str(folder), "PROJECT": str(project), "BUILTIN": "off", "WEB_PROCESSES": "2"}
    with running_server({f"TORCHLOOP_{name}": value for name, value in settings.items()}) as url:
        yield Service(url, store)
    store.close()


@contextmanager
def asked_all_the_time(service: Service, key: str) -> Iterator[list[tuple[float, int | None]]]:
    """Ask for one key; yields when each answer came, and its version."""
    found: list[tuple[float, int | None]] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            found.append((time.time(), service.ask(key)[1]))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def test_keys_keep_their_version_in_all_processes_while_shares_grow_and_processes_die(service: Service) -> None:
    stages = [{"share": share, "for": "PT1H"} for share in (0.1, 0.3, 0.5)]
    trial = service.open(version=GOOD, stages=stages, key_header="X-User")

    def expected(share: float) -> dict[str, set[int | None]]:
        return {key: {GOOD if chosen(key, share) else LIVE} for key in KEYS}

    def chosen(key: str, share: float) -> bool:
        return is_chosen(trial["id"], key, share)

    assert service.versions() == expected(0.1)
    service.advance()
    assert service.versions() == expected(0.3)
    member = next(key for key in KEYS if chosen(key, 0.3))
    with asked_all_the_time(service, member) as answers:
        for process in web_processes():
            process.kill()
            until(partial(is_replaced, service, process))
        service.advance()
        assert service.versions() == expected(0.5)
        assert service.advance()["state"] == "promoted"
        assert service.versions(times=1) == {key: {GOOD} for key in KEYS}
    assert {version for _, version in answers} == {GOOD}
    assert service.call("POST", "/models/times/rollback")["live"] == LIVE


def is_replaced(service: Service, gone: psutil.Process) -> bool:
    """Whether two processes answer, without one that was killed."""
    text = service.metrics()
    pids = re.findall(r'loaded_version{model="times",pid="(\d+)"}', text)
    return len(pids) == 2 and str(gone.pid) not in pids


def web_processes() -> list[psutil.Process]:
    """The web processes of the service."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[1:3] == ["-m", "service.serve"]:
                found.append(process)
    return found


def test_a_candidate_with_five_percent_errors_is_rolled_back_within_a_thousand_requests(service: Service) -> None:
    stages = [{"share": 0.1, "for": "PT1H"}]
    conditions = {"errors": {"alpha": 0.01}}
    trial = service.open(version=FAILING, stages=stages, key_header="X-User", conditions=conditions)
    sent = chosen = 0
    while service.trial()["state"] == "canary":
        assert sent < 1000
        for number in range(sent, sent + 100):
            key = f"caller-{number}"
            is_candidates = is_chosen(trial["id"], key, 0.1)
            chosen += is_candidates
            fails = chosen % 20 == 5 if is_candidates else number % 20 == 0  # 5% of the keys of either version
            expected = (500, None) if is_candidates and fails else (200, FAILING if is_candidates else LIVE)
            assert service.ask(key, TOO_MUCH if fails else PLAIN) == expected
        sent += 100
        until(partial(is_judged, service, sent), 60)
    ended = service.trial()
    service.followed(ended)
    assert ended["state"] == "rolled_back"
    assert "errors" in ended["reason"]
    assert service.versions() == {key: {LIVE} for key in KEYS}


def is_judged(service: Service, sent: int) -> bool:
    """Whether all requests are counted, and the leader has drawn its conclusion from them."""
    trial = service.trial()
    if trial["state"] != "canary":
        return True
    arms = trial["evidence"]["stages"][0]["arms"]
    errors = next(one for one in trial["evidence"]["conditions"] if one["condition"] == "errors")
    is_counted = sum(arm["requests"] for arm in arms.values()) == sent
    return is_counted and not (errors["e_value"] or 0) >= errors["limit"]
