"""Requests that are answered before their body is read, and clients that send them."""

import http.client
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import httpx
import pytest

from tests.sockets import Address, Connection

MB = 1_000_000
MAX_BODY_BYTES = 1_500_000
PIECE = bytes(65_536)


class Case(NamedTuple):
    """A request that is answered before its body is read."""

    status: int
    method: str
    path: str
    headers: Mapping[str, str] = {}
    key: str = ""


PNG, OCTETS, JSON = ({"Content-Type": kind} for kind in ("image/png", "application/octet-stream", "application/json"))
OPEN = [
    Case(403, "POST", "/predict/mnist", {**PNG, "Origin": "http://elsewhere.example"}),
    Case(403, "POST", "/train", {**JSON, "Sec-Fetch-Site": "cross-site"}),
    Case(404, "POST", "/predict/unknown", PNG),
    Case(404, "POST", "/nothing", OCTETS),
    Case(404, "POST", "/v2/models/unknown/infer", OCTETS),
    Case(404, "POST", "/models/unknown/versions", OCTETS),
    Case(405, "PUT", "/predict/mnist", PNG),
    Case(405, "POST", "/models", JSON),
    Case(405, "DELETE", "/v2/models/mnist/infer", OCTETS),
    Case(413, "POST", "/predict/mnist", PNG),
    Case(413, "POST", "/predict/mnist", JSON),
    Case(413, "POST", "/explain/mnist", PNG),
    Case(413, "POST", "/preview/mnist", PNG),
    Case(413, "POST", "/train", JSON),
    Case(413, "POST", "/models/mnist/promote", JSON),
    Case(413, "POST", "/models/mnist/versions", OCTETS),
    Case(413, "POST", "/v2/models/mnist/infer", OCTETS),
    Case(413, "POST", "/v2/repository/index", JSON),
    Case(415, "POST", "/predict/mnist", {"Content-Type": "text/csv"}),
    Case(415, "POST", "/explain/classifier", PNG),
    Case(421, "POST", "/predict/mnist", {**PNG, "Host": "elsewhere.example"}),
    Case(422, "POST", "/predict/mnist?version=one", PNG),
]
LOCKED = [
    Case(401, "POST", "/predict/mnist", PNG),
    Case(401, "POST", "/models/mnist/versions", OCTETS, key="wrong"),
    Case(403, "POST", "/train", JSON, key="reads"),
    Case(403, "POST", "/models/mnist/versions", OCTETS, key="reads"),
]
FULL = [Case(429, "POST", "/asked", PNG)]
CASES = {"open": OPEN, "locked": LOCKED, "full": FULL}
EVERY = [(door, case) for door, cases in CASES.items() for case in cases]


def named(value: object) -> str:
    return f"{value.status} {value.method} {value.path} {value.key}" if isinstance(value, Case) else str(value)


def headers_of(case: Case) -> dict[str, str]:
    return {**case.headers, **({"Authorization": f"Bearer {case.key}"} if case.key else {})}


def with_urllib(where: Address, case: Case, body: bytes) -> int:
    request = urllib.request.Request(_url(where, case), body, headers_of(case), method=case.method)  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as err:
        with err:
            return err.code if err.read() else 0


def with_http_client(where: Address, case: Case, body: bytes, *, chunked: bool, close: bool) -> int:
    connection = http.client.HTTPConnection(*where, timeout=60)
    more = {"Connection": "close"} if close else {}
    content = (body[at : at + 65_536] for at in range(0, len(body), 65_536)) if chunked else body
    connection.request(case.method, case.path, content, {**headers_of(case), **more}, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.read()
    if not close:  # the connection is still usable: what was left of the body is no request
        connection.request("GET", "/nothing")
        following = connection.getresponse()
        assert following.read()
        assert following.status in {401, 404}
    connection.close()
    return response.status


def with_httpx(where: Address, case: Case, body: bytes, *, close: bool) -> int:
    more = {"Connection": "close"} if close else {}
    with httpx.Client(timeout=60, trust_env=False) as client:
        statuses = [
            client.request(case.method, _url(where, case), content=body, headers={**headers_of(case), **more})
            for _ in range(2)
        ]
    assert statuses[0].content
    assert len({response.status_code for response in statuses}) == 1
    return statuses[0].status_code


def with_socket(where: Address, case: Case, body: bytes, *, chunked: bool) -> int:
    """A client that reads the answer to the end of the connection, and only then sends most of its body."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    begin = b"%x\r\n" % len(body) if chunked else b""
    with Connection(where) as caller:
        caller.send(
            _head(case, b"Connection: close\r\n" + framing) + begin + body[: MAX_BODY_BYTES + 1 if chunked else 1]
        )
        status, _ = caller.answer()
        assert caller.headers["connection"] == "close"
        assert caller.read.read() == b""
        for at in range(0, len(body), len(PIECE)):  # a reset would be an error here
            caller.send(body[at : at + len(PIECE)])
    return status


def with_expect(where: Address, case: Case, body: bytes) -> int:
    """A client that waits for 100 Continue gets the answer instead, and the connection ends."""
    with Connection(where) as caller:
        caller.send(_head(case, b"Expect: 100-continue\r\nContent-Length: %d" % len(body)))
        status, _ = caller.answer()
        assert caller.headers["connection"] == "close"
        caller.send(body[:MB])
        assert caller.read.read() == b""
    return status


def with_curl(where: Address, case: Case, body: bytes, *, options: tuple[str, ...] = ()) -> int:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on this machine")
    lines = [part for name, value in headers_of(case).items() for part in ("-H", f"{name}: {value}")]
    command = [curl, "-sS", "--noproxy", "*", "--max-time", "60", "-X", case.method, *lines, *options]
    command += ["-w", "\n%{http_code}", "--data-binary", "@-", _url(where, case)]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    return int(done.stdout.rpartition(b"\n")[2])


NODE = """
const http = require("http");
const [host, port, method, path, headers, size, keep] = process.argv.slice(1);
const agent = new http.Agent({ keepAlive: keep === "yes" });
const options = { host, port, method, path, agent, headers: JSON.parse(headers) };
const request = http.request(options, (response) => {
  response.on("data", () => {});
  response.on("end", () => { console.log(response.statusCode); process.exit(0); });
});
request.on("error", (error) => { console.log(error.code); process.exit(1); });
request.end(Buffer.alloc(Number(size)));
"""


def with_node(where: Address, case: Case, body: bytes, *, keep: bool) -> int:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    arguments = [*map(str, where), case.method, case.path, json.dumps(headers_of(case)), str(len(body))]
    command = [node, "-e", NODE, *arguments, "yes" if keep else "no"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    return int(done.stdout)


def _url(where: Address, case: Case) -> str:
    return f"http://{where[0]}:{where[1]}{case.path}"


def _head(case: Case, more: bytes) -> bytes:
    host = {} if "Host" in case.headers else {"Host": "localhost"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**host, **headers_of(case)}.items())
    return f"{case.method} {case.path} HTTP/1.1\r\n{lines}".encode() + more + b"\r\n\r\n"


CLIENTS: Mapping[str, Callable[[Address, Case, bytes], int]] = {
    "urllib": with_urllib,
    "http.client": partial(with_http_client, chunked=False, close=False),
    "http.client, close": partial(with_http_client, chunked=False, close=True),
    "http.client, chunked": partial(with_http_client, chunked=True, close=False),
    "http.client, chunked, close": partial(with_http_client, chunked=True, close=True),
    "httpx": partial(with_httpx, close=False),
    "httpx, close": partial(with_httpx, close=True),
    "socket": partial(with_socket, chunked=False),
    "socket, chunked": partial(with_socket, chunked=True),
    "100-continue": with_expect,
}
PROGRAMS: Mapping[str, Callable[[Address, Case, bytes], int]] = {
    "curl": with_curl,
    "curl, close": partial(with_curl, options=("-H", "Connection: close", "-H", "Expect:")),
    "curl, HTTP/1.0": partial(with_curl, options=("--http1.0",)),
    "curl, chunked": partial(with_curl, options=("-H", "Transfer-Encoding: chunked", "-H", "Expect:")),
    "node": partial(with_node, keep=False),
    "node, keep-alive": partial(with_node, keep=True),
}
