"""What docs/security.md promises of the running service: one with all its processes, and a body limit of 100 MB."""

import http.client
import json
import math
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import pytest

from service.api.access import RULES
from tests.fakes import running_server
from tests.hostile import FORM, INSIDE, JSON, SEVEN, Hostile, post
from tests.hostile_client import answer, connected, normal, send, web_process
from tests.openinference import framed

pytestmark = pytest.mark.slow

LAG_S = 0.1  # for so long, at most, the event loop may stand still
AT_ONCE_S = 1.0
TRIES = 3  # a busy machine adds to a time, and nothing takes from it: the best of them tells
FILLED = {"{model}": "regressor", "{version}": "1", "{job_id}": "0" * 32, "{name}": "main.js", "{path:path}": "x"}
ODD = [
    "..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "%2e%2e%2f%2e%2e", "%252e%252e%252f", "....//",
    "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "C:%5cx", "..%5c..%5cx", "a%00.pt", "%00", "regressor%00",
    "regressor%2f..%2fmnist", "~root", ".", "Regressor", "regressor.", "regressor%20", "%ff%fe", "link", "%24%28id%29",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With symbolic links where models and jobs have their folders."""
    folder = tmp_path_factory.mktemp("store")
    for part in ("checkpoints", "jobs"):
        (folder / part).mkdir()
        (folder / part / "link").symlink_to("/etc")
    return folder


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    settings = {"TORCHLOOP_STORE": str(store), "TORCHLOOP_WORKER": "embedded", "TORCHLOOP_MAX_BODY_BYTES": str(10**8)}
    with running_server(settings) as url:
        normal(url)
        yield url


def processes(url: str) -> list[psutil.Process]:
    web = web_process(url)
    return [web, *web.children(recursive=True)]


@contextmanager
def probed(url: str) -> Iterator[list[float]]:
    """Meanwhile the service is asked whether it lives, one request after the other: the seconds that each took."""
    over, taken = threading.Event(), [0.0]

    def probe() -> None:
        with httpx.Client() as client:
            client.get(f"{url}/health/live")
            while not over.is_set():
                began = time.perf_counter()
                assert client.get(f"{url}/health/live", timeout=60).status_code == 200
                taken.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(probe)
        try:
            yield taken
        finally:
            over.set()
            future.result()


def best(url: str, ask: Callable[[], object], at_once_s: float = AT_ONCE_S) -> tuple[float, float]:
    """The least of TRIES: for how long the event loop stood still at most, and how long it all took.

    One is enough where it is good enough.
    """
    lags, times = [], []
    for _ in range(TRIES):
        with probed(url) as taken:
            began = time.perf_counter()
            ask()
            times.append(time.perf_counter() - began)
        lags.append(max(taken))
        if lags[-1] < LAG_S and times[-1] < at_once_s:
            break
    return min(lags), min(times)


def asked(url: str, hostile: Hostile) -> tuple[int, Any]:
    with connected(url) as connection:
        send(connection, hostile)
        status, _, body = answer(connection)
    assert status in hostile.statuses, (hostile.name, status, body)
    return status, body


def test_s03_s32_only_the_configured_port_is_open(url: str) -> None:
    """With the worker and, after an explanation, a process for autograd beside it."""
    assert httpx.post(f"{url}/explain/regressor", json={"inputs": [[0.5]]}, timeout=60).status_code == 200
    found = processes(url)
    assert len(found) >= 3
    ends = [end for process in found for end in process.net_connections("all")]
    listening = {end.laddr for end in ends if end.status == psutil.CONN_LISTEN or (end.type == 2 and end.laddr)}
    assert [(at.ip, at.port) for at in listening] == [("127.0.0.1", urlsplit(url).port)]


def raw(url: str, method: str, path: str) -> tuple[int, bytes]:
    """A request whose path goes out as it is."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, b'{"version": 1}', {"Content-Type": JSON})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_s02_s13_s16_no_name_leads_out_of_its_place(url: str, store: Path) -> None:
    """Each odd name for each parameter of each path; `link` is that of a symbolic link in the store."""

    def files() -> list[str]:
        return sorted(path.name for folder in ("checkpoints", "jobs") for path in (store / folder).rglob("*"))

    before = files()
    for rule in RULES:
        method, path = rule.split()
        for parameter in re.findall(r"\{[^}]*\}", path):
            for name in ODD:
                odd = path.replace(parameter, name)
                for known, value in FILLED.items():
                    odd = odd.replace(known, value)
                status, content = raw(url, method, odd)
                assert status in {400, 404, 405, 422}, (rule, name, content)
                said = content.decode().replace(json.dumps(unquote(name))[1:-1], "")
                assert not re.search(r"root:|canary", said)
                assert not INSIDE.search(said), (rule, name, said)
    assert files() == before


def test_s18_a_hundred_thousand_outputs_are_refused_at_once(url: str) -> None:
    pixels = {"name": "input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(SEVEN) + 4}}
    for names in (["output"] * 100_000, [f"o{number}" for number in range(100_000)]):
        head = json.dumps({"inputs": [pixels], "outputs": [{"name": name} for name in names]}).encode()
        content = head + framed(SEVEN)
        hostile = Hostile(
            "outputs",
            "/v2/models/mnist/infer",
            [b"Inference-Header-Content-Length: %d" % len(head), b"Content-Length: %d" % len(content)],
            content,
            {400},
        )
        lag, taken = best(url, partial(asked, url, hostile))
        assert (lag < LAG_S, taken < AT_ONCE_S) == (True, True), (lag, taken)


def peak(url: str) -> int:
    """The most memory, in bytes, that the web process has had since `reset`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{web_process(url).pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_s18_a_bomb_is_counted_while_it_is_inflated(url: str, coding: str) -> None:
    stream = zlib.compressobj(1, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(stream.compress(bytes(2**20)) for _ in range(1024)) + stream.flush()
    Path(f"/proc/{web_process(url).pid}/clear_refs").write_text("5")
    before = peak(url)
    hostile = post("bomb", f"{JSON}\r\nContent-Encoding: {coding}", bomb, 413, path="/v2/models/mnist/infer")
    asked(url, hostile)
    assert peak(url) - before < 300 * 10**6  # of the 1,074 million bytes; the limit is 100


def test_s18_loading_and_unloading_under_load_breaks_nothing(url: str) -> None:
    base = f"{url}/v2/repository/models/regressor"
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}]}
    over = threading.Event()

    def change(what: str) -> set[int]:
        return {httpx.post(f"{base}/{what}", timeout=60).status_code for _ in range(20)}

    def infer() -> set[int]:
        statuses = set()
        while not over.is_set():
            statuses.add(httpx.post(f"{url}/v2/models/regressor/infer", json=body, timeout=60).status_code)
        return statuses

    with ThreadPoolExecutor(5) as pool:
        callers = [pool.submit(infer) for _ in range(3)]
        changes = [pool.submit(change, what) for what in ("load", "unload")]
        assert [future.result() for future in changes] == [{200}, {200}]
        over.set()
        assert set().union(*(future.result() for future in callers)) <= {200, 503}
    assert httpx.post(f"{base}/load", timeout=60).status_code == 200
    assert httpx.post(f"{url}/v2/models/regressor/infer", json=body).status_code == 200


def test_s24_a_large_upload_stalls_nobody(url: str) -> None:
    upload = post("60 MB", "application/octet-stream", bytes(60_000_000), 422, path="/models/regressor/versions")
    lag, _ = best(url, partial(asked, url, upload), at_once_s=math.inf)
    assert lag < LAG_S


def test_s24_ten_thousand_ranges_are_answered_at_once(url: str) -> None:
    for ranges in ("0-0," * 10_000 + "1-1", ",".join(f"{2 * at}-{2 * at}" for at in range(5_000)), "-1," * 10_000):

        def ask(ranges: str = ranges) -> None:
            path = f"{url}/models/regressor/versions/1/checkpoint"
            assert httpx.get(path, headers={"Range": f"bytes={ranges}"}, timeout=60).status_code in {200, 206, 400, 416}

        lag, taken = best(url, ask)
        assert (lag < LAG_S, taken < AT_ONCE_S) == (True, True), (lag, taken)


PART = b'--x\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\n\r\n'
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
URLENCODED = "application/x-www-form-urlencoded"
FLOODS = [
    post("a million parts", FORM, PART * 1_000_000 + b"--x--", 413),
    post("a million fields", FORM, (FIELD + b"\r\n") * 1_000_000 + b"--x--", 413),
    Hostile("one field of 1 GB", "/predict/mnist", [b"Content-Type: " + FORM.encode(), b"Content-Length: 1000000000"],
            FIELD, {413}),
    post("a million urlencoded fields", URLENCODED, b"a=b&" * 1_000_000, 415),
    Hostile("a million urlencoded fields to train", "/train", [b"Content-Type: " + URLENCODED.encode()],
            (b"a=b&" * 250_000,) * 4, {413, 415}),
    post("a million part headers", FORM, b"--x\r\n" + b"A: b\r\n" * 1_000_000, 400),
    post("a part header of 60 MB", FORM, b"--x\r\nA: " + b"x" * 60_000_000, 400),
    post("60 MB before the form", FORM, b"\r\n" * 30_000_000, 400),
    post("15 MB of almost the boundary", FORM, PART + b"\r\n--" * 3_750_000, 400, 422),
]  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.name)
def test_s27_s33_a_flood_of_form_parts_is_refused_at_once_and_stalls_nobody(url: str, flood: Hostile) -> None:
    lag, taken = best(url, partial(asked, url, flood))
    assert (lag < LAG_S, taken < AT_ONCE_S) == (True, True), (lag, taken)
    normal(url)


def test_s33_upload_names_never_reach_the_disk(url: str, store: Path) -> None:
    content = PART.replace(b'"x"', b'"../../canary.png"')[:-2] + SEVEN + b"\r\n--x--\r\n"
    assert asked(url, post("a name", FORM, content, 200))[0] == 200
    files = [Path(file.path) for process in processes(url) for file in process.open_files()]
    assert not [path for path in [*files, *store.parent.rglob("*")] if "canary" in path.name]
