"""Requests that attack by their size: many parts, many fields, long headers, large uploads."""

import json
import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.servers import SEVEN

JSON, FORM = "application/json", "multipart/form-data; boundary=x"
LIMIT = 10**8  # TORCHLOOP_MAX_BODY_BYTES of the service under test


class Hostile(NamedTuple):
    """A request. `head` and `body` are sent unchanged; an iterable body is sent with chunked transfer encoding."""

    name: str
    path: str
    head: list[bytes]
    body: bytes | Iterable[bytes]
    statuses: set[int]


def post(name: str, media_type: str, body: bytes, *statuses: int, path: str = "/predict/mnist") -> Hostile:
    head = [f"Content-Type: {media_type}".encode()] if media_type else []
    return Hostile(name, path, [*head, b"Content-Length: %d" % len(body)], body, set(statuses))


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


def outputs() -> Iterator[Hostile]:
    """Yield Open Inference Protocol requests that ask for 100,000 outputs."""
    size = 4 + len(SEVEN.content)
    pixels = {"name": "input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    for names in (["output"] * 100_000, [f"o{number}" for number in range(100_000)]):
        head = json.dumps({"inputs": [pixels], "outputs": [{"name": name} for name in names]}).encode()
        content = head + (size - 4).to_bytes(4, "little") + SEVEN.content
        yield Hostile(
            "a hundred thousand outputs",
            "/v2/models/mnist/infer",
            [b"Inference-Header-Content-Length: %d" % len(head), b"Content-Length: %d" % len(content)],
            content,
            {400},
        )


UPLOAD = post("60 MB", "application/octet-stream", bytes(60_000_000), 422, path="/models/regressor/versions")
CHECKPOINT = "/models/regressor/versions/1/checkpoint"
RANGES = (
    "0-0," * 10_000 + "1-1",
    ",".join(f"{2 * at}-{2 * at}" for at in range(5_000)),
    "-1," * 10_000,
)


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    return socket.create_connection((where.hostname, where.port), timeout=60)


def send(connection: socket.socket, hostile: Hostile) -> None:
    """Send the request, or as much of it as the server accepts."""
    chunked = not isinstance(hostile.body, bytes)
    framing = [b"Transfer-Encoding: chunked"] if chunked else []
    lines = [
        f"POST {hostile.path} HTTP/1.1".encode(),
        b"Host: localhost",
        b"Connection: close",
        *framing,
        *hostile.head,
    ]
    try:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        if isinstance(hostile.body, bytes):
            connection.sendall(hostile.body)
            return
        gathered = bytearray()
        for piece in hostile.body:
            gathered += b"%x\r\n%s\r\n" % (len(piece), piece)
            if len(gathered) > 2**16:
                connection.sendall(gathered)
                gathered.clear()
        connection.sendall(gathered + b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass


def answer(connection: socket.socket) -> tuple[int, str, Any]:
    """Read a response. Returns its status, media type and parsed JSON."""
    received = b""
    try:
        while piece := connection.recv(2**16):
            received += piece
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1.1 (\d{3}) .*?content-type: ([\w/+]+)", head, re.DOTALL | re.IGNORECASE)
    assert found, received[:200]
    return int(found[1]), found[2].decode(), json.loads(body)


def asked(url: str, hostile: Hostile) -> tuple[int, Any]:
    with connected(url) as connection:
        send(connection, hostile)
        status, _, body = answer(connection)
    assert status in hostile.statuses, (hostile.name, status, body)
    return status, body
