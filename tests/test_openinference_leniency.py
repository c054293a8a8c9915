"""What clients of other servers send in another form than the specification's, and is read all the same."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from models.spec import Array
from tests.fakes import LINE, save_line
from tests.openinference import LENGTH, SEVEN, binary_row, framed, is_error, row, with_tail
from tests.serving import png, serving

MNIST, INFER = "/v2/models/mnist/infer", "/v2/models/line/infer"
JPEG = png(np.kron(drawn_seven(), np.ones((4, 4), np.uint8)), "JPEG")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


def labels(response: Any) -> list[int]:
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    return [int(label) for label in np.array(output["data"]).reshape(output["shape"]).argmax(axis=1)]


NULLS: list[dict[str, Any]] = [
    {"inputs": [row(3)], "parameters": None},
    {"inputs": [row(3) | {"parameters": None}]},
    {"inputs": [row(3)], "outputs": [{"name": "output", "parameters": None}]},
    {"inputs": [row(3) | {"parameters": None}], "outputs": None, "id": None, "parameters": None},
    {"inputs": [row(3) | {"parameters": {}}], "outputs": [], "parameters": {}},
]


@pytest.mark.parametrize("body", NULLS, ids=range(len(NULLS)))
def test_parameters_that_are_null_are_as_if_absent(line: TestClient, body: dict[str, Any]) -> None:
    response = line.post(INFER, json=body)
    assert response.status_code == 200, response.text
    assert response.json()["outputs"][0]["data"] == [7]


@pytest.mark.parametrize("body", [{"parameters": None}, {"parameters": None, "ready": True}, {}])
def test_the_repository_takes_null_for_absent_too(line: TestClient, body: dict[str, Any]) -> None:
    assert line.post("/v2/repository/index", json=body).status_code == 200
    assert line.post("/v2/repository/models/line/load", json=body).status_code == 200


@pytest.mark.parametrize("parameters", [False, 0, "", [], "x", [None]])
def test_parameters_of_another_type_are_refused(line: TestClient, parameters: Any) -> None:
    assert is_error(line.post(INFER, json={"inputs": [row(3)], "parameters": parameters}), 400, "parameters")
    assert is_error(line.post("/v2/repository/models/line/load", json={"parameters": parameters}), 400, "parameters")


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "plain": base64.b64encode,
    "lines": base64.encodebytes,
    "lines of CRLF": lambda content: base64.encodebytes(content).replace(b"\n", b"\r\n"),
    "spaces": lambda content: b" " + base64.b64encode(content)[:8] + b"	 " + base64.b64encode(content)[8:],
    "url-safe": base64.urlsafe_b64encode,
    "unpadded": lambda content: base64.b64encode(content).rstrip(b"="),
    "url-safe and unpadded": lambda content: base64.urlsafe_b64encode(content).rstrip(b"="),
    "a data URL": lambda content: b"data:image/png;base64," + base64.b64encode(content),
}


@pytest.mark.many
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("extra", range(3))
def test_base64_is_read_in_every_usual_form(client: TestClient, written: str, extra: int) -> None:
    """`extra` bytes behind the picture, for each length of the padding."""
    texts = [WRITTEN[written](picture + bytes(extra)).decode() for picture in (SEVEN, JPEG)]
    body = {"name": "input", "datatype": "BYTES", "shape": [2], "data": texts}
    assert labels(client.post(MNIST, json={"inputs": [body]})) == [7, 7]


@pytest.mark.parametrize("text", ["iVBORw0*GgoA", "iVBO=Rw0KGgoA", "iVBORw0KGgoAA", "ä", "no base64!"])
def test_text_that_is_not_base64_is_refused(client: TestClient, text: str) -> None:
    body = {"name": "input", "datatype": "BYTES", "shape": [1], "data": [text]}
    assert is_error(client.post(MNIST, json={"inputs": [body]}), 400, "base64")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_column_of_bytes_is_as_a_list_of_them(client: TestClient, count: int) -> None:
    texts = [base64.b64encode(SEVEN).decode()] * count
    item = {"name": "input", "datatype": "BYTES", "shape": [count, 1]}
    for data in (texts, [[text] for text in texts]):
        assert labels(client.post(MNIST, json={"inputs": [{**item, "data": data}]})) == [7] * count
    tail = framed(*[SEVEN] * count)
    head = {"inputs": [{**item, "parameters": {"binary_data_size": len(tail)}}]}
    assert labels(client.post(MNIST, **with_tail(head, tail))) == [7] * count


@pytest.mark.parametrize("shape", [[1, 2], [2, 2], [1, 1, 1], [], [0, 2]])
def test_bytes_in_other_shapes_are_refused(client: TestClient, shape: list[int]) -> None:
    body = {"name": "input", "datatype": "BYTES", "shape": shape, "data": [base64.b64encode(SEVEN).decode()]}
    assert is_error(client.post(MNIST, json={"inputs": [body]}), 400, "shape")


@pytest.mark.parametrize("values", [[3.0], [0.1, -2.5], [1e-300, 3]])
def test_rows_of_fp64_are_converted(line: TestClient, values: list[float]) -> None:
    expected = line.post(INFER, json={"inputs": [row(*values)]}).json()["outputs"]
    assert line.post(INFER, json={"inputs": [row(*values, datatype="FP64")]}).json()["outputs"] == expected
    content = np.array(values, "<f8").tobytes()
    sent = binary_row(content, datatype="FP64", shape=[len(values), 1])
    assert line.post(INFER, **sent).json()["outputs"] == expected
    assert line.get("/v2/models/line").json()["inputs"][0]["datatype"] == "FP32"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e300])
def test_fp64_that_fp32_cannot_hold_is_refused(line: TestClient, value: float) -> None:
    values: Array = np.array([value], "<f8")
    assert is_error(line.post(INFER, **binary_row(values.tobytes(), datatype="FP64")), 400, "finite")


def test_the_raw_form_stays_fp32(line: TestClient) -> None:
    response = line.post(INFER, content=np.array([3], "<f4").tobytes(), headers={LENGTH: "0"})
    assert response.content.endswith(np.array([7], "<f4").tobytes())
    assert is_error(line.post(INFER, content=np.array([3], "<f8").tobytes(), headers={LENGTH: "0"}), 400, "4 bytes")


@pytest.mark.parametrize("version", ["01", "+1", "1.0", "1e0", "\u0661"])
def test_a_version_is_written_without_signs_and_zeros(line: TestClient, version: str) -> None:
    assert is_error(line.post(f"/v2/models/line/versions/{version}/infer", json={"inputs": [row(3)]}), 404)
