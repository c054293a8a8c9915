"""Requests in the words of the Open Inference Protocol, for the fake model and for pictures."""

import json
import struct
from typing import Any

import httpx2

from models.mnist import drawn_seven
from tests.serving import png

LENGTH = "Inference-Header-Content-Length"
SEVEN = png(drawn_seven())
LIMIT = 100_000


def row(*values: float, **changes: Any) -> dict[str, Any]:
    """One input for the fake model."""
    item = {"name": "input", "datatype": "FP32", "shape": [len(values), 1], "data": list(values), **changes}
    return {name: value for name, value in item.items() if value is not None}


def framed(*pictures: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)


def with_tail(head: Any, tail: bytes) -> dict[str, Any]:
    content = json.dumps(head).encode()
    return {"content": content + tail, "headers": {LENGTH: str(len(content))}}


def binary_row(data: bytes, size: Any = None, **changes: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": len(data) if size is None else size}
    return with_tail({"inputs": [row(1, **{"data": None, "parameters": parameters, **changes})]}, data)


def is_error(response: httpx2.Response, status: int, words: str = "") -> bool:
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert words in response.json()["error"], response.text
    assert "Traceback" not in response.text
    assert "0x" not in response.text
    return True
