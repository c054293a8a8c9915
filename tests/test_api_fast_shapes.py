"""Requests of other shapes that are answered without a task: forms, /v2, the last request of a connection.

What is answered must not depend on the way; see tests/fast_ways.py.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from models.mnist import drawn_seven
from tests.fakes import LINE, save_line
from tests.fast_ways import JSON, NPY, PNG, application, ask, ask_in_chunks, lines, noted_ways, of, picture
from tests.openinference import LENGTH, framed, row
from tests.sockets import Address, Connection

FORM = "multipart/form-data; boundary=xYz"
INFER = "/v2/models/mnist/infer"
OCTETS = "application/octet-stream"
SEVEN, PIXELS = picture(), drawn_seven()
BLANK = picture(np.zeros((28, 28), np.uint8))


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with application(tmp_path_factory.mktemp("shapes")) as address:
        yield address


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each small request: whether it was answered without a task."""
    return noted_ways(monkeypatch)


def part(content: bytes, head: str = 'Content-Disposition: form-data; name="a"; filename="7.png"') -> bytes:
    return b"--xYz\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes, end: bytes = b"--xYz--\r\n") -> bytes:
    return b"".join([*parts, end])


TEXT = 'Content-Disposition: form-data; name="a"'
FORMS: dict[str, tuple[bytes, int]] = {
    "a picture": (form(part(SEVEN)), 200),
    "its type": (form(part(SEVEN, TEXT + "\r\nContent-Type: image/png")), 200),
    "headers in capitals": (form(part(SEVEN, (TEXT + "\r\nContent-Type: image/png").upper())), 200),
    "an epilogue": (form(part(SEVEN), end=b"--xYz--\r\nmore"), 200),
    "a preamble": (b"\r\n" + form(part(SEVEN)), 200),
    "no line break at the end": (form(part(SEVEN), end=b"--xYz--"), 200),
    "three pictures, one blank": (form(part(SEVEN), part(BLANK), part(SEVEN)), 200),
    "forty pictures": (form(*[part(SEVEN)] * 40), 200),
    "a text beside it": (form(part(b"words", TEXT), part(SEVEN)), 200),
    "a file input that was left empty": (form(part(b"", TEXT + '; filename=""'), part(SEVEN)), 200),
    "the boundary within the file": (form(part(SEVEN + b"--xYz")), 200),
    "blanks around a value": (form(part(SEVEN, TEXT.replace(": ", ":   ") + '; filename="7" ')), 200),
    "a name in another alphabet": (form(part(SEVEN, TEXT + '; filename="\u0667.png"')), 200),
    "a folded header": (form(part(SEVEN, TEXT + ';\r\n filename="7"')), 400),
    "nine headers": (form(part(SEVEN, "\r\n".join([TEXT + '; filename="7"', *["X-Name: 1"] * 8]))), 400),
    "no file": (form(part(b"words", TEXT)), 422),
    "nothing": (b"", 400),
    "no last boundary": (form(part(SEVEN), end=b""), 400),
    "no line break before a boundary": (form(part(SEVEN)[:-2], part(SEVEN)), 200),
    "no head": (form(b"--xYz\r\n\r\n" + SEVEN + b"\r\n"), 422),
    "another boundary": (form(part(SEVEN)).replace(b"xYz", b"zYx"), 400),
    "a blank picture alone": (form(part(BLANK)), 422),
    "too many files": (form(*[part(b"x")] * 257), 413),
}


@pytest.mark.many
@pytest.mark.parametrize("name", FORMS)
def test_both_ways_read_a_form_alike(where: Address, name: str, taken: list[bool]) -> None:
    body, status = FORMS[name]
    answer = ask(where, "mnist", FORM, body)
    assert answer == ask_in_chunks(where, "mnist", FORM, body)
    assert (answer[0], taken) == (status, [True])


def test_a_form_with_a_large_picture_or_of_another_model_falls_through(where: Address, taken: list[bool]) -> None:
    large = form(part(picture(np.zeros((400, 400), np.uint8))))
    for model, body in (("mnist", large), ("mnist", large + bytes(70_000)), ("regressor", form(part(b"x")))):
        assert ask(where, model, FORM, body) == ask_in_chunks(where, model, FORM, body)
    assert True not in taken


def tensor(data: Any, datatype: str = "BYTES", shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": datatype, "shape": shape or [1], "data": data, **more}


def inputs(*tensors: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


def binary(data: bytes, datatype: str = "BYTES", shape: list[int] | None = None, **more: Any) -> tuple[bytes, str]:
    """A body with the tensor behind the JSON, and the length of the JSON."""
    sized = tensor(None, datatype, shape, parameters={"binary_data_size": len(data)})
    del sized["data"]
    head = inputs(sized, **more)
    return head + data, str(len(head))


TEXT_OF_SEVEN = base64.b64encode(SEVEN).decode()
NUMBERS = PIXELS.reshape(-1).tolist()
ALL_BINARY: dict[str, Any] = {"parameters": {"binary_data_output": True}}
CLASSES: dict[str, Any] = {"outputs": [{"name": "output", "parameters": {"classification": 3}}]}
INFERS: dict[str, tuple[bytes, int]] = {
    "a picture": (inputs(tensor([TEXT_OF_SEVEN])), 200),
    "an id": (inputs(tensor([TEXT_OF_SEVEN]), id="mine"), 200),
    "pixels in a row": (inputs(tensor(NUMBERS, "UINT8", [1, 28, 28])), 200),
    "pixels nested": (inputs(tensor(PIXELS[None].tolist(), "UINT8", [1, 28, 28])), 200),
    "classes": (inputs(tensor([TEXT_OF_SEVEN]), **CLASSES), 200),
    "binary answers": (inputs(tensor([TEXT_OF_SEVEN]), **ALL_BINARY), 200),
    "a pixel above 255": (inputs(tensor([256, *NUMBERS[1:]], "UINT8", [1, 28, 28])), 400),
    "a boolean pixel": (inputs(tensor([True, *NUMBERS[1:]], "UINT8", [1, 28, 28])), 400),
    "a broken pixel": (inputs(tensor([0.5, *NUMBERS[1:]], "UINT8", [1, 28, 28])), 400),
    "a pixel too few": (inputs(tensor(NUMBERS[1:], "UINT8", [1, 28, 28])), 400),
    "a blank picture": (inputs(tensor([base64.b64encode(BLANK).decode()])), 400),
    "no base64": (inputs(tensor(["!"])), 400),
    "no picture at all": (inputs(tensor([], shape=[0])), 400),
    "no JSON": (b"{", 400),
    "nested too deep": (b'{"inputs": ' + b"[" * 200 + b"]" * 200 + b"}", 400),
    "nested too deep beside the inputs": (
        inputs(tensor([TEXT_OF_SEVEN]))[:-1] + b', "x": ' + b"[" * 200 + b"]" * 200 + b"}",
        400,
    ),
    "another input": (inputs(tensor([TEXT_OF_SEVEN], name="other")), 400),
    "a reserved parameter": (inputs(tensor([TEXT_OF_SEVEN]), parameters={"timeout": -1}), 400),
}


@pytest.mark.parametrize("name", INFERS)
def test_both_ways_read_an_infer_request_alike(where: Address, name: str, taken: list[bool]) -> None:
    body, status = INFERS[name]
    answer = ask(where, INFER, JSON, body)
    assert answer == ask_in_chunks(where, INFER, JSON, body)
    assert (answer[0], taken) == (status, [True])


BINARIES: dict[str, tuple[tuple[bytes, str], int]] = {
    "pictures": (binary(framed(SEVEN, SEVEN), shape=[2]), 200),
    "pixels": (binary(PIXELS.tobytes(), "UINT8", [1, 28, 28]), 200),
    "binary answers": (binary(framed(SEVEN), **ALL_BINARY), 200),
    "one byte too few": (binary(PIXELS.tobytes()[1:], "UINT8", [1, 28, 28]), 400),
    "no length": ((b"x", "nine"), 400),
    "the tensor alone": ((PIXELS.tobytes(), "0"), 200),
}


@pytest.mark.parametrize("name", BINARIES)
def test_both_ways_read_a_binary_infer_request_alike(where: Address, name: str, taken: list[bool]) -> None:
    (body, length), status = BINARIES[name]
    answer = ask(where, INFER, OCTETS, body, **{LENGTH: length})
    assert answer == ask_in_chunks(where, INFER, OCTETS, body, **{LENGTH: length})
    assert (answer[0], taken) == (status, [True])


@pytest.mark.parametrize(
    ("path", "status", "fast"),
    [
        ("/v2/models/mnist/versions/1/infer", 200, [True]),
        ("/v2/models/mnist/versions/2/infer", 404, []),
        ("/v2/models/mnist/versions/01/infer", 404, []),
        ("/v2/models/mnist/versions/one/infer", 404, []),
        ("/v2/models/other/versions/1/infer", 404, []),
        ("/versions/1/v2/models/mnist/infer", 404, []),
        ("/predict/mnist/versions/1/infer", 404, []),
    ],
)
def test_a_version_in_the_path_answers_if_it_is_loaded(
    where: Address, path: str, status: int, fast: list[bool], taken: list[bool]
) -> None:
    body = inputs(tensor([TEXT_OF_SEVEN]))
    answer = ask(where, path, JSON, body)
    assert (answer[0], taken) == (status, fast)
    assert answer == ask_in_chunks(where, path, JSON, body)


@pytest.mark.slow
def test_large_tensors_and_large_answers_are_left_to_a_thread(
    tmp_path_factory: pytest.TempPathFactory, taken: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("wide")
    save_line(folder)
    with application(folder, {"line": LINE}) as where:
        path, body = "/v2/models/line/infer", inputs(row(*range(5000)))
        for _ in range(2):
            answer = ask(where, path, JSON, body, **{"Accept-Encoding": "gzip"})
            assert (answer[0], answer[2]["content-encoding"]) == (200, "gzip")
        numbers = inputs({**row(*[1] * 10_000), "datatype": "FP64"})
        assert ask(where, path, JSON, numbers)[0] == 200
    assert taken == [True, True, False]


def test_a_model_that_is_closed_to_v2_is_refused_by_the_application(where: Address, taken: list[bool]) -> None:
    body = inputs(row(1.0))
    for change, status, fast in (("unload", 503, []), ("load", 200, [True])):
        with Connection(where) as caller:
            caller.send(lines(where, f"/v2/repository/models/regressor/{change}", JSON, {"Content-Length": "0"}))
            assert caller.answer()[0] == 200
        taken.clear()
        assert ask(where, "/v2/models/regressor/infer", JSON, body)[0] == status
        assert taken == fast


@pytest.mark.parametrize(("version", "more"), [("1.1", {"Connection": "close"}), ("1.0", {}), ("1.1", {"Accept": NPY})])
def test_the_last_request_of_a_connection_is_answered_alike(
    where: Address, version: str, more: dict[str, str], taken: list[bool]
) -> None:
    seen = []
    for size in (str(len(SEVEN)), f"+{len(SEVEN)}"[1:].zfill(12)):  # a length of more than 8 digits is unusual
        with Connection(where) as caller:
            caller.send(lines(where, "/predict/mnist", PNG, {**more, "Content-Length": size}, version) + SEVEN)
            seen.append(of(caller))
            if "Accept" not in more:
                assert caller.read.read() == b""
    assert seen[0] == seen[1]
    assert seen[0][0] == 200
    assert taken == [True]
