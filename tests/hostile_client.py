"""Raw connections to a started service, and the service's process that answers them."""

import json
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from tests.hostile import SEVEN, Hostile


def web_process(url: str) -> psutil.Process:
    """The one that listens there."""
    port = urlsplit(url).port
    for process in psutil.Process().children(recursive=True):
        if any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in process.net_connections("tcp")):
            return process
    raise AssertionError("nobody listens")


def connected(url: str) -> socket.socket:
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    return socket.create_connection((where.hostname, where.port), timeout=60)


def send(connection: socket.socket, hostile: Hostile) -> None:
    """All of it, or as much as is taken."""
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
    """Status, media type and JSON of one answer."""
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


def normal(url: str) -> None:
    """The service answers as ever."""
    response = httpx.post(f"{url}/predict/mnist", content=SEVEN)
    assert response.json()["predictions"][0]["label"] == 7
