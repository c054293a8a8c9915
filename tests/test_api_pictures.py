"""Pictures through every route that takes them: by their bytes, whatever is declared; one bad picture fails alone."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.handwriting.normalise import read_digit
from models.mnist import SPEC, drawn_seven
from models.pictures import PICTURE_FORMATS
from models.spec import Array
from tests.problems import is_problem
from tests.serving import png, serving

SEVEN = png(drawn_seven())
FAULTS = (struct.error, TypeError, KeyError, IndexError, AssertionError, RecursionError, MemoryError, OSError, EOFError)
FAULTY = {fault: png(drawn_seven()[:, : 10 + number]) for number, fault in enumerate(FAULTS)}


def read_or_fail(picture: Image.Image) -> Array:
    """A model author's reader that fails on pictures of some widths."""
    if picture.width < 10 + len(FAULTS):
        raise FAULTS[picture.width - 10]
    return read_digit(picture)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(specs={"mnist": replace(SPEC, picture=read_or_fail)}) as client:
        yield client


@pytest.mark.parametrize("kind", PICTURE_FORMATS.values())
@pytest.mark.parametrize("declared", [*PICTURE_FORMATS, "application/octet-stream"])
def test_a_picture_is_read_by_its_bytes(client: TestClient, kind: str, declared: str) -> None:
    content = png(drawn_seven(), kind)
    response = client.post("/predict/mnist", content=content, headers={"content-type": declared})
    assert response.json()["predictions"][0]["label"] == 7
    response = client.post("/predict/mnist", files={"f": ("digit.png", content, declared)})
    assert response.json()["predictions"][0]["label"] == 7


def of_form(client: TestClient, route: str, *contents: bytes) -> Any:
    return client.post(route, files=[("f", (f"{number}.png", content)) for number, content in enumerate(contents)])


FORMS: dict[str, Callable[[Any], Any]] = {
    "/predict/mnist": lambda answer: answer["predictions"],
    "/preview/mnist": lambda answer: answer["samples"],
    "/explain/mnist": lambda answer: answer["explanations"],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("route", FORMS)
def test_an_exception_for_one_picture_is_the_error_of_its_part(
    client: TestClient, route: str, fault: type[Exception]
) -> None:
    response = of_form(client, route, SEVEN, FAULTY[fault], SEVEN)
    assert response.status_code == 200
    first, second, third = FORMS[route](response.json())
    assert second["error"]["title"] == "Unreadable picture"
    assert first == third
    assert "error" not in first
    assert is_problem(client.post(route, content=FAULTY[fault]), 422, "Unreadable picture .*damaged")
    assert is_problem(of_form(client, route, FAULTY[fault], FAULTY[fault]), 422, "Unreadable picture sample 0: ")


@pytest.mark.parametrize("fault", FAULTS)
def test_v2_names_the_picture_that_failed(client: TestClient, fault: type[Exception]) -> None:
    tail = b"".join(struct.pack("<I", len(content)) + content for content in (SEVEN, FAULTY[fault]))
    size = f'"parameters": {{"binary_data_size": {len(tail)}}}'
    head = f'{{"inputs": [{{"name": "input", "datatype": "BYTES", "shape": [2], {size}}}]}}'.encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = client.post("/v2/models/mnist/infer", content=head + tail, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"].startswith("Unreadable picture: sample 1: ")


def with_exif(block: bytes) -> bytes:
    content = png(255 - drawn_seven().repeat(8, axis=0).repeat(8, axis=1), "JPEG")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


BLOCKS = {
    "nothing": b"Exif\0\0",
    "four bytes": b"Exif\0\0II*\0",
    "BigTIFF": b"Exif\0\0II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    "no byte order": b"Exif\0\0XX*\0\x08\0\0\0",
    "an offset past the end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "a type of number that does not exist": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\x63\0\1\0\0\0\6\0\0\0",
    "a text as orientation": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\x006\0\0\0",
    "a text longer than the block": b"Exif\0\0II*\0\x08\0\0\0\1\0\x0f\1\2\0\xff\xff\xff\xff\6\0\0\0",
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))
def test_an_odd_exif_block_is_no_error_on_any_route(client: TestClient, block: bytes) -> None:
    content = with_exif(block)
    answers = [FORMS[route](client.post(route, content=content).json())[0] for route in FORMS]
    assert "error" not in str(answers)
    assert answers[0]["label"] == answers[2]["label"] == 7
