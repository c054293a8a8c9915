"""CPU time of a request by its shape: the same picture as PNG, JSON, form, /v2, of a version, on new connections.

`python -m service` with one web process and 64 callers in a closed loop; every response must be 200. CPU time is that
of the service, without its clients. Ratios are taken within each round, to a PNG on a connection that is kept alive,
and for requests that close their connection also to that PNG on a new connection each, which the client closes.

What a new connection adds to a request is compared with what it adds to one of a bare ASGI application on uvicorn, for
which the kernel, the event loop and the server do the same.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from benchmarks import Options
from benchmarks.openloop import Client, post
from benchmarks.report import Aim, table
from benchmarks.servers import BARE, SEVEN, cpu_s, started
from benchmarks.service_process import running_service

AIM = 1.3
PLAIN, NEW = "PNG", "PNG, a new connection each"
BARE_PLAIN, BARE_NEW = "bare ASGI application", "bare ASGI application, a new connection each"
_CALLERS = 64
_PATH, _INFER = "/predict/mnist", "/v2/models/mnist/infer"
_JSON, _OCTETS, _FORM = "application/json", "application/octet-stream", "multipart/form-data; boundary=one"
_CLOSE = "Connection: close"


def requests() -> dict[str, tuple[bytes, bool]]:
    """Return the request of each shape, and whether its connection is closed after it."""
    picture, kind = SEVEN.content, SEVEN.media_type
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    part = b'--one\r\nContent-Disposition: form-data; name="file"; filename="7.png"\r\nContent-Type: image/png\r\n\r\n'
    form = part + picture + b"\r\n--one--\r\n"
    rows = json.dumps({"inputs": [pixels.tolist()]}).encode()
    array = io.BytesIO()
    np.save(array, pixels[None])
    text = base64.b64encode(picture).decode()
    as_numbers = {"name": "input", "datatype": "UINT8", "shape": [1, 28, 28]}
    as_file = {"name": "input", "datatype": "BYTES", "shape": [1]}

    def binary(tensor: Mapping[str, object], data: bytes) -> bytes:
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}).encode()
        return post(_INFER, head + data, _OCTETS, f"Inference-Header-Content-Length: {len(head)}")

    def listed(tensor: Mapping[str, object], data: Sequence[object]) -> bytes:
        return post(_INFER, json.dumps({"inputs": [{**tensor, "data": data}]}).encode(), _JSON)

    return {
        PLAIN: (post(_PATH, picture, kind), False),
        ".npy": (post(_PATH, array.getvalue(), "application/x-npy"), False),
        "JSON, 784 numbers": (post(_PATH, rows, _JSON), False),
        "form": (post(_PATH, form, _FORM), False),
        "PNG, ?version=1": (post(f"{_PATH}?version=1", picture, kind), False),
        "/v2, binary, pixels": (binary(as_numbers, pixels.tobytes()), False),
        "/v2, binary, PNG": (binary(as_file, len(picture).to_bytes(4, "little") + picture), False),
        "/v2, JSON, PNG as base64": (listed(as_file, [text]), False),
        "/v2, JSON, 784 numbers": (listed(as_numbers, pixels.reshape(-1).tolist()), False),
        NEW: (post(_PATH, picture, kind), True),
        "PNG, Connection: close": (post(_PATH, picture, kind, _CLOSE), True),
        "PNG, HTTP/1.0": (post(_PATH, picture, kind, version="1.0"), True),
    }


def main(options: Options) -> str:
    """Return the tables. Raises SystemExit if a response was not 200."""
    shapes = requests()
    rounds = []
    with running_service({}) as (url, process), started(BARE) as bare:
        service = psutil.Process(process.pid)
        for number in range(-1, options.rounds):  # the first one warms up
            seen = {name: _cpu_us(url, partial(cpu_s, service), *shapes[name], options) for name in shapes}
            for name, same in ((BARE_PLAIN, PLAIN), (BARE_NEW, NEW)):
                seen[name] = _cpu_us(bare.url, bare.cpu_s, *shapes[same], options)
            rounds += [seen] if number >= 0 else []
    return table_of(rounds)


def _cpu_us(url: str, cpu_spent_s: Callable[[], float], request: bytes, closes: bool, options: Options) -> float:
    """Return a server's CPU time per request, in µs."""
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    with Client(where.hostname, where.port, requests=[request], closes=closes) as client:
        before = cpu_spent_s()
        answers = client.closed_loop(_CALLERS, options.seconds)
        spent_s = cpu_spent_s() - before
    if odd := {answer.status for answer in answers} - {200}:
        raise SystemExit(f"shapes: {request[:60]!r} was answered with {sorted(odd)}")
    return spent_s / len(answers) * 1e6


def table_of(rounds: Sequence[Mapping[str, float]]) -> str:
    """Return CPU times, and the ratios with their aims."""
    rows = [[name, f"{median(seen[name] for seen in rounds):.0f}"] for name in rounds[0]]
    aims = [
        Aim(f"{name} / {base}", [median(seen[name] / seen[base] for seen in rounds)], AIM)
        for name in rounds[0]
        if name not in {BARE_PLAIN, BARE_NEW}
        for base in ((PLAIN, NEW) if list(rounds[0]).index(name) > list(rounds[0]).index(NEW) else (PLAIN,))
        if name != base
    ]
    if BARE_NEW in rounds[0]:
        added = median((seen[NEW] - seen[PLAIN]) / (seen[BARE_NEW] - seen[BARE_PLAIN]) for seen in rounds)
        aims.append(Aim("what a new connection adds / what it adds to a bare ASGI application", [added], AIM))
    head = f"  {_CALLERS} callers, medians of {len(rounds)} rounds"
    return "\n\n".join(
        [
            f"{head}\n{table(['', 'µs CPU/request'], rows)}",
            table(["", "reached", "aim", ""], [aim.cells() for aim in aims]),
        ]
    )
