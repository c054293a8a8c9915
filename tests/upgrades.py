"""Requests with Upgrade headers in every framing, and requests for every kind of route."""

import io
from typing import NamedTuple

import numpy as np

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
UPGRADES = {
    "h2c": H2C,
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "mixed case, spaces": b"uPgRaDe: \t TLS/1.3, anything \r\nCONNECTION: keep-alive ,\tuPGRADE \t\r\n",
    "two Connection headers": b"Connection: keep-alive\r\nUpgrade: x\r\nConnection: upgrade\r\n",
    "two Upgrade headers": b"Upgrade: x\r\nConnection: upgrade\r\nUpgrade: y\r\n",
    "an empty header": b"X-Empty:\r\nUpgrade: x\r\nConnection: upgrade\r\nX-Empty:\r\n",
}
INNER = b"GET /other?inner HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEXT = b"GET /other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnext"
LAST = b"GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
JSON = "application/json"


def chunked(body: bytes) -> bytes:
    """In chunks of 7 bytes, with a trailer that names an upgrade, too."""
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return chunks + b"0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"


def framed(head: bytes, body: bytes, upgrade: bytes = b"") -> dict[str, bytes]:
    """One request in each framing, with the upgrade's headers before and after those of the framing."""
    size, chunks = b"Content-Length: %d\r\n" % len(body), b"Transfer-Encoding: chunked\r\n"
    return {
        "sized": head + upgrade + size + b"\r\n" + body,
        "sized, Upgrade last": head + size + upgrade + b"\r\n" + body,
        "chunked": head + upgrade + chunks + b"\r\n" + chunked(body),
        "chunked, Upgrade last": head + chunks + upgrade + b"\r\n" + chunked(body),
    }


FRAMINGS = list(framed(b"", b""))


class Case(NamedTuple):
    """A request of the real application, and the status of its answer."""

    method: str
    path: str
    body: bytes = b""
    media_type: str = JSON
    status: int = 200
    host: str = "localhost"
    more: str = ""

    @property
    def head(self) -> bytes:
        told = f"{self.method} {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: {self.media_type}\r\n"
        return (told + self.more).encode()


def samples() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((2, 1), np.float32))
    return file.getvalue()


INPUTS = b'{"inputs": [[1], [2]]}'
TENSOR = b'{"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}'
CASES = [
    Case("POST", "/predict/regressor", INPUTS),
    Case("POST", "/predict/regressor?version=1", INPUTS),
    Case("POST", "/predict/regressor", samples(), "application/x-npy"),
    Case("POST", "/predict/regressor", INPUTS * 2, status=400),
    Case("POST", "/predict/regressor", INNER, "text/plain", 415),
    Case("POST", "/predict/regressor", b'{"inputs": [["x"]]}', status=422),
    Case("POST", "/predict/regressor", INPUTS, status=421, host="elsewhere"),
    Case("POST", "/predict/regressor", INPUTS, status=403, more="Origin: http://elsewhere\r\n"),
    Case("POST", "/predict/regressor", b" " * 5000, status=413),
    Case("POST", "/predict/unknown", INPUTS, status=404),
    Case("POST", "/explain/regressor", INPUTS),
    Case("POST", "/preview/regressor", INPUTS),
    Case("POST", "/train", b'{"model": "regressor", "hyperparameters": {"epochs": 0}}', status=422),
    Case("POST", "/train", b'{"model": "regressor"}', status=202),
    Case("POST", "/models/regressor/versions", INNER, "application/octet-stream", 422),
    Case("POST", "/models/regressor/promote", b'{"version": 9}', status=404),
    Case("POST", "/models/regressor/rollback", status=409),
    Case("POST", "/v2/models/regressor/infer", TENSOR),
    Case("POST", "/v2/models/regressor/infer", INNER, status=400),
    Case("POST", "/v2/repository/index", b"{}"),
    Case("GET", "/models"),
    Case("GET", "/models", INNER),
    Case("GET", "/health/ready", INNER),
    Case("GET", "/nothing", INNER, status=404),
    Case("HEAD", "/", INNER),
    Case("PUT", "/models", INNER, status=405),
    Case("OPTIONS", "/predict/regressor", INNER, status=405),
]
CLIENTS = [case for case in CASES if case.method in {"GET", "POST"} and case.media_type == JSON and not case.more]

JAVA = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();  // its default version is HTTP/2: it asks for an upgrade
        for (int at = 0; at < arguments.length; at += 3) {
            HttpRequest.BodyPublisher body = HttpRequest.BodyPublishers.ofString(arguments[at + 2]);
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[at + 1]))
                .header("Content-Type", "application/json").method(arguments[at], body).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        }
    }
}
"""
