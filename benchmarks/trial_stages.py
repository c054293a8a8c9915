"""Keys while the share of a canary grows: none of them may go back to the live version.

Two web processes serve mnist, with its own checkpoint once more as the candidate. Callers with sixty keys ask again and
again, each time on a new connection, so that any process may answer, while a trial is advanced by hand from a shadow to
shares of 10, 30 and 50%. A request of a key that begins after the candidate has answered that key must not be answered
by the live version.
"""

import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

import httpx

from benchmarks import Options
from benchmarks.openloop import post
from benchmarks.report import Aim, table
from benchmarks.servers import PRETRAINED, SEVEN
from benchmarks.service_process import running_service

_CALLERS, _KEYS = 6, 60
_STAGE = {"for": "PT6H", "samples": 100_000_000}
_STAGES = [{"shadow": 1.0, **_STAGE}, *({"share": share, **_STAGE} for share in (0.1, 0.3, 0.5))]
_VERSION = re.compile(rb"x-model-version: (\d+)", re.IGNORECASE)
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its begin and end, in s, and the version that answered."""

    began: float
    ended: float
    version: int


@dataclass(slots=True)
class Round:
    """The requests of one trial by key, those without a 200, and the seconds until all processes followed a change."""

    asked: dict[int, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    bad: int = 0
    followed_s: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of requests that were answered with 200."""
        return sum(map(len, self.asked.values()))


def main(options: Options) -> str:
    """Return the table."""
    settings = {"TORCHLOOP_WEB_PROCESSES": "2"}
    with (
        TemporaryDirectory() as store,
        running_service({**settings, "TORCHLOOP_STORE": store}) as (url, _),
        httpx.Client(base_url=url, timeout=60) as api,
    ):
        found = api.post("/models/mnist/versions", content=(PRETRAINED / "mnist.pt").read_bytes())
        candidate: int = found.raise_for_status().json()["version"]
        rounds = [_round(api, candidate, options.seconds) for _ in range(options.rounds)]
    back = [sum(went_back(asked, candidate) for asked in one.asked.values()) for one in rounds]
    rows = [
        Aim("answers in a trial, with new connections", [one.count for one in rounds]),
        Aim("answers of the live version after one of the candidate", back, 0),
        Aim("requests without a 200", [one.bad for one in rounds], 0),
        Aim("advanced, until all processes follow, s", [took for one in rounds for took in one.followed_s], 2),
    ]
    return table(["", "least to greatest", "aim", "met"], [row.cells() for row in rows])


def went_back(asked: Sequence[Asked], candidate: int) -> int:
    """Return how many requests of one key began after an answer of the candidate, and got one of another version."""
    first = min((one.ended for one in asked if one.version == candidate), default=None)
    return 0 if first is None else sum(one.began > first and one.version != candidate for one in asked)


def _round(api: httpx.Client, candidate: int, seconds: float) -> Round:
    _change(api, "", {"version": candidate, "stages": _STAGES, "key_header": "X-User"})
    found, stop = Round(), threading.Event()
    where = api.base_url.host, api.base_url.port or 80
    callers = [
        threading.Thread(target=_ask, args=(where, range(first, _KEYS, _CALLERS), found, stop))
        for first in range(_CALLERS)
    ]
    for caller in callers:
        caller.start()
    try:
        for _ in _STAGES[1:]:
            time.sleep(seconds)
            began = time.perf_counter()
            _change(api, "/advance", {})
            found.followed_s.append(time.perf_counter() - began)
        time.sleep(seconds)
    finally:
        stop.set()
        for caller in callers:
            caller.join()
        _change(api, "/abort", {})
    return found


def _change(api: httpx.Client, path: str, body: Mapping[str, object]) -> None:
    """Change the trial. Raises RuntimeError if a process does not follow within two seconds."""
    answer = api.post(f"/models/mnist/trial{path}", json=body).raise_for_status().json()
    if answer["waiting_for"]:
        raise RuntimeError(f"not followed by {answer['waiting_for']}")


def _ask(where: tuple[str, int], keys: range, found: Round, stop: threading.Event) -> None:
    """Ask with each of the keys in turn until `stop` is set. The lists of keys are of this thread alone."""
    while not stop.is_set():
        for key in keys:  # a whole turn, so that each key is asked as often
            request = post("/predict/mnist", SEVEN.content, SEVEN.media_type, f"X-User: {key}", "Connection: close")
            began = time.perf_counter()
            try:
                answer = _answer(where, request)
            except OSError:
                answer = b""
            version = _VERSION.search(answer)
            if answer.startswith(b"HTTP/1.1 200 ") and version is not None:
                found.asked[key].append(Asked(began, time.perf_counter(), int(version[1])))
            else:
                found.bad += 1


def _answer(where: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(where, timeout=_TIMEOUT_S) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)
