"""Requests that are answered without a task, and by the ASGI application: what is answered must not depend on the way.

A request goes the way of all others if its body comes in chunks.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.mnist import drawn_seven
from models.spec import Array, ModelSpec
from service.api import fast_predict
from service.api.openinference.inferring import HEADER_LENGTH
from service.app import create_app
from service.settings import Settings
from service.telemetry.ids import version_of
from tests.fakes import InProcess
from tests.serving import line_recipes
from tests.sockets import Address, Connection, listening
from tests.templates import migrated

Answer = tuple[int, bytes, dict[str, str]]
PNG, NPY, JSON = "image/png", "application/x-npy", "application/json"


def picture(pixels: Array = drawn_seven(), kind: str = "png") -> bytes:  # noqa: B008 - nobody changes it
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def array(samples: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, samples)
    return file.getvalue()


@contextmanager
def application(store: Path, specs: dict[str, ModelSpec] | None = None, **settings: Any) -> Iterator[Address]:
    def child(_: object = None) -> InProcess:
        return InProcess(specs)

    told = Settings(store=migrated(store / "store"), **settings)
    app = (
        create_app(told, specs, store, line_recipes, child)
        if specs
        else create_app(told, read=line_recipes, start_child=child)
    )
    with listening(app) as (where, _):
        yield where


def lines(where: Address, path: str, kind: str, more: dict[str, str], version: str = "1.1") -> bytes:
    told = {"Host": f"localhost:{where[1]}", "Content-Type": kind, **more}
    return "".join([f"POST {path} HTTP/{version}\r\n", *(f"{n}: {v}\r\n" for n, v in told.items()), "\r\n"]).encode()


def path_of(model: str) -> str:
    """The path of a model's predictions, or another path."""
    return model if model.startswith("/") else f"/predict/{model}"


def ask(where: Address, model: str, kind: str, body: bytes, **more: str) -> Answer:
    """Status, content and headers of one request; the headers without their times."""
    with Connection(where) as caller:
        caller.send(lines(where, path_of(model), kind, {**more, "Content-Length": str(len(body))}) + body)
        return of(caller)


def ask_in_chunks(where: Address, model: str, kind: str, body: bytes, **more: str) -> Answer:
    with Connection(where) as caller:
        head = lines(where, path_of(model), kind, {**more, "Transfer-Encoding": "chunked"})
        caller.send(head + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n")
        return of(caller)


def of(caller: Connection) -> Answer:
    """Status, content and headers of an answer without its times and its id; lengths are those without the id."""
    status, content = caller.answer()
    headers = {name: value for name, value in caller.headers.items() if name != "date"}
    if "server-timing" in headers:
        headers["server-timing"] = re.sub(r"[\d.]+", "0", headers["server-timing"])
    identity = headers.pop("x-prediction-id", "").encode()
    if content.startswith(b"{") and status == 200:
        assert version_of(identity.decode())
        assert identity in content
        content = content.replace(identity, b"its id", 1)
        for name in ("content-length", HEADER_LENGTH.lower()):
            if name in headers:
                headers[name] = str(int(headers[name]) - len(identity))
    return status, content, headers


def noted_ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each small request from now on: whether it was answered without a task."""
    found: list[bool] = []
    begin = fast_predict.Exchange.begin

    def noted(self: fast_predict.Exchange, *arguments: Any) -> bool:
        found.append(True)  # before the answer is seen
        found[-1] = begin(self, *arguments)
        return found[-1]

    monkeypatch.setattr(fast_predict.Exchange, "begin", noted)
    return found
