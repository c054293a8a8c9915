"""Checkpoints that the client uploads: files, networks and state_dicts of torch and of NumPy."""

import asyncio
import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from service.client import AsyncClient, BadArgument, Client, Invalid
from service.client.checkpoints import content
from tests.fakes import LINE, Line, save_line
from tests.serving import BASE_URL, over, serving

STATE = Line(slope=5).state_dict()
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


def torch_saved() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


def wide() -> Mapping[str, Any]:
    """Views of a large tensor: 4 bytes each of 4 MB."""
    storage = torch.zeros(1_000_000)
    return {"slope": storage[3:4].fill_(5), "offset": storage[7:8].fill_(1)}


CHECKPOINTS: Mapping[str, Callable[[], Any]] = {
    "bytes": torch_saved,
    "bytearray": lambda: bytearray(torch_saved()),
    "memoryview": lambda: memoryview(torch_saved()),
    "BytesIO": lambda: io.BytesIO(torch_saved()),
    "safetensors": lambda: safetensors.torch.save(STATE),
    "network": lambda: Line(slope=5),
    "network that trains": lambda: Line(slope=5).train().requires_grad_(),
    "object with a state_dict": lambda: SimpleNamespace(state_dict=lambda: STATE),
    "state_dict": lambda: STATE,
    "dict": lambda: dict(STATE),
    "OrderedDict": lambda: OrderedDict(STATE),
    "parameters": lambda: dict(Line(slope=5).named_parameters()),
    "views": wide,
    "arrays": lambda: ARRAYS,
    "big endian arrays": lambda: {name: array.astype(">f4") for name, array in ARRAYS.items()},
    "arrays of float64": lambda: {name: array.astype(np.float64) for name, array in ARRAYS.items()},
    "tensors and arrays": lambda: {"slope": STATE["slope"], "offset": ARRAYS["offset"]},
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as app, Client(BASE_URL, transport=over(app)) as client:
        yield client


def check(client: Client, checkpoint: Any, **arguments: Any) -> None:
    added = client.register("line", checkpoint, **arguments)
    assert client.predict("line", [[1.0]], version=added["version"])["predictions"] == [{"value": 6.0}]


@pytest.mark.many
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_every_kind_of_checkpoint_is_registered(line: Client, kind: str) -> None:
    check(line, CHECKPOINTS[kind]())


def test_views_are_saved_without_the_tensor_that_they_are_views_of() -> None:
    saved = content(wide())
    assert isinstance(saved, bytes)
    assert len(saved) < 10_000


def test_paths_are_registered(line: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "five.pt"
    path.write_bytes(torch_saved())
    with path.open("rb") as file:
        for item in (path, str(path), "~/five.pt", os.fsencode(path).decode(), file):
            check(line, item)


def test_the_file_of_a_path_is_read_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    seen: list[tuple[str, int, float]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        pieces = [len(piece) for piece in request.stream]
        seen.append((request.headers["content-length"], sum(pieces), request.extensions["timeout"]["read"]))
        assert max(pieces) < 1_000_000
        assert "transfer-encoding" not in request.headers
        return httpx.Response(201, json={"version": 2})

    class Unread(httpx.BaseTransport):  # httpx.MockTransport reads the body first
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return handle(request)

    with Client(transport=Unread()) as client:
        assert client.register("line", path)["version"] == 2
    assert seen == [("100000000", 100_000_000, 220)]


def test_the_asynchronous_client_sends_the_file_of_a_path(tmp_path: Path) -> None:
    path = tmp_path / "small.pt"
    path.write_bytes(b"weights")

    async def handle(request: httpx.Request) -> httpx.Response:
        assert await request.aread() == b"weights"
        return httpx.Response(201, json={"version": 2})

    async def go() -> int:
        async with AsyncClient(transport=httpx.MockTransport(handle)) as client:
            return (await client.register("line", str(path)))["version"]

    assert asyncio.run(go()) == 2


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    path.touch()
    with Client() as client, pytest.raises(BadArgument, match=r"empty\.pt is empty: 0 bytes"):
        client.register("line", path)


@pytest.mark.parametrize("arguments", [{"slope": 1}, {"slope": np.float32(1)}, '{"slope": 1}', {}, None])
def test_arguments_are_a_dict_or_json(line: Client, arguments: Any) -> None:
    check(line, STATE, arguments=arguments)


@pytest.mark.parametrize("arguments", [{"slope": float("nan")}, {"slope": {1}}, 64, [("slope", 1)], b"{}"])
def test_other_arguments_are_refused(arguments: Any) -> None:
    with pytest.raises(BadArgument, match="arguments"):
        Client().register("line", STATE, arguments=arguments)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_are_written_as_safetensors_reads_them(dtype: str, shape: tuple[int, ...]) -> None:
    arrays = {"a": np.ones(shape, dtype), "ä b": np.asfortranarray(np.arange(6).reshape(2, 3))}
    saved = content(arrays)
    assert isinstance(saved, bytes)
    read = safetensors.numpy.load(saved)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert (read[name] == array).all()


REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "class": (lambda: Line, "Line is a class"),
    "None": (lambda: None, "not NoneType"),
    "number": (lambda: 5, "not int"),
    "list": (lambda: [STATE], "not list"),
    "empty": (dict, "the state_dict is empty"),
    "network without parameters": (torch.nn.ReLU, "the state_dict is empty"),
    "empty bytes": (lambda: b"", "empty"),
    "optimizer": (lambda: torch.optim.SGD(Line().parameters()), "'state' is of type dict"),
    "training checkpoint": (lambda: {"epoch": 3, "state_dict": STATE}, "'epoch' is of type int"),
    "nested": (lambda: {"state_dict": STATE}, "'state_dict' is of type OrderedDict"),
    "numbered": (lambda: {0: STATE["slope"]}, "0 is of type Tensor"),
    "meta": (lambda: Line().to("meta"), "cannot be saved"),
    "texts": (lambda: {"slope": np.array(["a"])}, "slope has dtype str"),
    "objects": (lambda: {"slope": np.array([None])}, "slope has dtype object"),
    "text file": (lambda: io.StringIO("x"), 'mode "rb"'),
    "missing": (lambda: "no.pt", "no.pt cannot be opened"),
    "folder": (lambda: Path("/"), "is a folder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_checkpoints_are_refused_by_one_line(kind: str) -> None:
    make, says = REFUSED[kind]
    with pytest.raises(BadArgument, match=says) as refused:
        content(make())
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_checkpoint_is_refused_by_the_service(line: Client) -> None:
    with pytest.raises(Invalid):
        line.register("line", b"no checkpoint")
