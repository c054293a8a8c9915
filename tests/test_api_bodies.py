"""Forms in which clients send bodies: compressed, under other media types, as parts of forms; and hints in errors."""

import base64
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.catalog import specs
from models.mnist import drawn_seven
from service.app import create_app
from service.media_types import UNREGISTERED_PICTURES
from service.settings import Settings
from tests.fakes import InProcess
from tests.problems import is_problem
from tests.serving import line_recipes, npy, png, serving
from tests.sockets import Connection, listening
from tests.templates import migrated

LIMIT = 300_000
SEVEN = png(drawn_seven())
JPEG = png(drawn_seven(), "JPEG")
ROW = json.dumps({"inputs": [[0.5]]}).encode()
TENSOR = b'{"inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [0.5]}]}'
JSON, OCTETS = "application/json", "application/octet-stream"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving(max_body_bytes=LIMIT, max_checkpoint_bytes=LIMIT) as client:
        yield client


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": partial(zlib.compress, wbits=-15),
}
# path, media type, body, status: each route that reads a body
ROUTES = [
    ("/predict/regressor", JSON, ROW, 200),
    ("/predict/regressor?version=1", JSON, ROW, 200),
    ("/predict/regressor", "application/x-npy", npy(np.array([[0.5]], np.float32)), 200),
    ("/predict/mnist", "image/png", SEVEN, 200),
    ("/predict/mnist", OCTETS, SEVEN, 200),
    ("/explain/regressor", JSON, ROW, 200),
    ("/preview/mnist", "image/png", SEVEN, 200),
    ("/train", JSON, b'{"model": "regressor", "config": {"epochs": 0}}', 422),
    ("/models/regressor/promote", JSON, b'{"version": 1}', 200),
    ("/models/regressor/versions", OCTETS, b"no state_dict", 422),
    ("/v2/models/regressor/infer", JSON, TENSOR, 200),
    ("/v2/repository/index", JSON, b'{"ready": true}', 200),
    ("/v2/repository/models/regressor/load", JSON, b"{}", 200),
]


@pytest.mark.many
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("path", "media_type", "body", "status"), ROUTES)
def test_every_route_reads_a_compressed_body(
    client: TestClient, path: str, media_type: str, body: bytes, status: int, coding: str
) -> None:
    headers = {"Content-Type": media_type}
    plainly = client.post(path, content=body, headers=headers)
    packed = client.post(path, content=CODINGS[coding](body), headers={**headers, "Content-Encoding": coding})
    assert (plainly.status_code, packed.status_code) == (status, status), packed.text
    assert _without_id(packed) == _without_id(plainly)


def _without_id(response: Any) -> bytes:
    """The content without the id of the prediction, which no two answers share."""
    content: bytes = response.content
    return content.replace(response.headers.get("x-prediction-id", "no id").encode(), b"")


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "nonsense"])
@pytest.mark.parametrize(("path", "media_type", "body"), [route[:3] for route in ROUTES])
def test_every_route_refuses_another_coding_and_names_those_that_it_reads(
    client: TestClient, path: str, media_type: str, body: bytes, coding: str
) -> None:
    response = client.post(path, content=body, headers={"Content-Type": media_type, "Content-Encoding": coding})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"


@cache
def bomb(coding: str) -> bytes:
    """50 MB of zeros; packed once, since that takes longer than all of their refusals."""
    return CODINGS[coding](bytes(50_000_000))


@pytest.mark.many
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("path", "media_type"), sorted({route[:2] for route in ROUTES}))
def test_a_bomb_is_413_on_every_route(client: TestClient, path: str, media_type: str, coding: str) -> None:
    response = client.post(path, content=bomb(coding), headers={"Content-Type": media_type, "Content-Encoding": coding})
    assert response.status_code == 413
    assert "unpacked" in response.text


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("path", "media_type"), sorted({route[:2] for route in ROUTES}))
def test_a_body_that_is_not_in_its_content_coding_is_400(
    client: TestClient, path: str, media_type: str, coding: str
) -> None:
    for broken in (b"\xff\xff\xff", gzip.compress(ROW)[:-4], zlib.compress(ROW)[:-2], b""):
        response = client.post(path, content=broken, headers={"Content-Type": media_type, "Content-Encoding": coding})
        assert response.status_code == 400
        assert "stream" in response.text


def test_a_small_compressed_prediction_does_not_take_the_fast_path_uncompressed(tmp_path: Path) -> None:
    given = Settings(store=migrated(tmp_path), backend="eager")
    app = create_app(
        given, {"regressor": specs()["regressor"]}, read=line_recipes, start_child=partial(InProcess, None)
    )
    with listening(app) as (where, _), Connection(where) as caller:
        for body, coding in ((ROW, b""), (gzip.compress(ROW), b"Content-Encoding: gzip\r\n")):
            caller.send(
                b"POST /predict/regressor HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"%bContent-Length: %d\r\n\r\n" % (coding, len(body)) + body
            )
            assert caller.answer()[0] == 200


# Names that browsers, mail programs, scanners and libraries use, and that no format has registered.
COUSINS = [
    "image/*", "image/jpg", "image/jfif", "image/pjpeg", "image/pjp", "image/jpe", "image/x-jpeg",
    "image/x-jpg", "image/x-jfif", "image/x-citrix-jpeg", "image/x-png", "image/apng", "image/x-apng",
    "image/x-citrix-png", "image/tif", "image/x-tif", "image/x-tiff", "image/x-bmp", "image/x-ms-bmp",
    "image/x-windows-bmp", "image/x-bitmap", "image/ms-bmp", "image/x-win-bitmap", "image/x-webp",
    "image/x-gif", "image/x-icon", "image/x-unknown", "image/unknown",
]  # fmt: skip


@pytest.mark.many
@pytest.mark.parametrize("picture", [SEVEN, JPEG])
@pytest.mark.parametrize("media_type", sorted({*UNREGISTERED_PICTURES, *COUSINS}))
@pytest.mark.parametrize("spelled", ["{}", "{}; charset=binary", "upper"])
def test_other_names_of_the_media_types_of_pictures_are_read(
    client: TestClient, media_type: str, picture: bytes, spelled: str
) -> None:
    named = media_type.upper() if spelled == "upper" else spelled.format(media_type)
    for path in ("/predict/mnist", "/preview/mnist"):
        assert client.post(path, content=picture, headers={"Content-Type": named}).status_code == 200
    part = part_of(f"form-data; name=x; filename=x\r\nContent-Type: {named}", picture)
    assert form(client, part).json()["predictions"][0]["label"] == 7
    assert client.post("/predict/regressor", content=picture, headers={"Content-Type": named}).status_code == 415


OTHERS = [
    "text/plain", "image/svg+xml", "image/tiff", "image/avif", "image/heic", "image/jxl", "image/jp2", "image/ktx2",
    "image/vnd.microsoft.icon", "image/vnd.adobe.photoshop", "image/prs.btif", "image", "video/mp4",
    "application/pdf", "x-image/png",
]  # fmt: skip


@pytest.mark.parametrize("media_type", OTHERS)
def test_media_types_other_than_pictures_are_415(client: TestClient, media_type: str) -> None:
    response = client.post("/predict/mnist", content=SEVEN, headers={"Content-Type": media_type})
    assert is_problem(response, 415, "send one of image/png")


def part_of(disposition: str, content: bytes) -> bytes:
    return b"Content-Disposition: " + disposition.encode() + b"\r\n\r\n" + content


def form(client: TestClient, *parts: bytes, path: str = "/predict/mnist") -> Any:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return client.post(path, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})


FILE = part_of('form-data; name="file"; filename="7.png"\r\nContent-Type: image/png', SEVEN)
FILES = {
    "a file name": 'form-data; name="file"; filename="7.png"',
    "a file name and a type": 'form-data; name="file"; filename="7.png"\r\nContent-Type: application/octet-stream',
    "a file name in the extended form": "form-data; name=\"file\"; filename*=UTF-8''%E2%82%AC.png",
    "both file names": 'form-data; name="file"; filename="7.png"; filename*=utf-8\'\'7.png',
    "an extended file name and a type": "form-data; name=\"file\"; filename*=UTF-8''7.png\r\nContent-Type: image/png",
    "an odd file name": 'form-data; name="file"; FileName = "a;b=\\"c\\".png"',
    "no file name, a PNG": 'form-data; name="file"\r\nContent-Type: image/png',
    "no file name, a JPEG by a common name": 'form-data; name="file"\r\nContent-Type: image/jpg',
    "no file name, octets": 'form-data; name="file"\r\nContent-Type: application/octet-stream',
    "no file name, octets of an object store": 'form-data; name="file"\r\nContent-Type: binary/octet-stream',
    "no field name": 'form-data; filename="7.png"\r\nContent-Type: image/png',
    "an empty file name": 'form-data; name="file"; filename=""\r\nContent-Type: image/png',
}
FIELDS = {
    "text": part_of('form-data; name="threshold"', b"0.5"),
    "text with a type": part_of('form-data; name="note"\r\nContent-Type: text/plain; charset=utf-8', "ä".encode()),
    "JSON": part_of('form-data; name="meta"\r\nContent-Type: application/json', b'{"a": 1}'),
    "an empty text": part_of('form-data; name="csrf_token"', b""),
    "a file input that was left empty": part_of(
        'form-data; name="second"; filename=""\r\nContent-Type: application/octet-stream', b""
    ),
    "a field of the browser": part_of('form-data; name="_charset_"', b"utf-8"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("path", ["/predict/mnist", "/preview/mnist", "/explain/mnist"])
def test_a_part_is_a_file_by_its_name_or_its_type(client: TestClient, kind: str, path: str) -> None:
    content = JPEG if "JPEG" in kind else SEVEN
    response = form(client, part_of(FILES[kind], content), part_of(FILES[kind], content), path=path)
    assert response.status_code == 200, response.text
    entries = next(value for value in response.json().values() if isinstance(value, list))
    assert len(entries) == 2
    assert not any("error" in entry for entry in entries if isinstance(entry, dict))


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_other_than_files_are_ignored(client: TestClient, kind: str) -> None:
    for parts in ((FILE, FIELDS[kind]), (FIELDS[kind], FILE), (FIELDS[kind], FILE, FIELDS[kind])):
        response = form(client, *parts)
        assert [entry["label"] for entry in response.json()["predictions"]] == [7]
    assert is_problem(form(client, FIELDS[kind]), 422, "holds no file.*file name or a Content-Type such as image/png")


@pytest.mark.parametrize("part", [FILE, *FIELDS.values()])
def test_a_form_has_at_most_256_files_and_256_fields(client: TestClient, part: bytes) -> None:
    assert is_problem(form(client, *[part] * 257), 413, "at most 256|more than 256")


DATA_URL = "data:image/png;base64," + base64.b64encode(SEVEN).decode()
WRONG = [
    DATA_URL,
    base64.b64encode(SEVEN).decode(),
    {"image": DATA_URL},
    {"image": base64.b64encode(SEVEN).decode()},
    {"instances": [{"b64": base64.b64encode(SEVEN).decode()}]},
    {"instances": [[0] * 784]},
    {"inputs": DATA_URL},
    {"inputs": [DATA_URL]},
    {"inputs": [{"image": DATA_URL}]},
    {"data": [1]},
    {"url": "https://example.com/7.png"},
    [DATA_URL],
]


@pytest.mark.parametrize("path", ["/predict/mnist", "/predict/mnist?version=1", "/preview/mnist", "/explain/mnist"])
@pytest.mark.parametrize("body", WRONG, ids=lambda body: json.dumps(body)[:30])
def test_a_picture_in_json_gets_an_error_that_says_how_to_send_pictures(
    client: TestClient, body: Any, path: str
) -> None:
    assert is_problem(client.post(path, json=body), 422, "send the bytes of its file as the body.*image/png.*multipart")


@pytest.mark.parametrize("media_type", ["image/png", OCTETS, "", "image/jpg"])
@pytest.mark.parametrize(
    "content", [SEVEN, JPEG, png(drawn_seven(), "GIF"), png(drawn_seven(), "WEBP"), png(drawn_seven(), "BMP")]
)
def test_a_picture_sent_as_text_gets_an_error_that_says_so(client: TestClient, content: bytes, media_type: str) -> None:
    text = base64.b64encode(content)
    for body in (text, b"data:image/png;base64," + text, b"DATA:;base64," + text, b"\n" + text, b'"' + text + b'"'):
        response = client.post(
            "/predict/mnist", content=body, headers={"Content-Type": media_type} if media_type else {}
        )
        assert is_problem(response, 422, "written as text.*send the bytes of its file")


def test_errors_of_models_of_numbers_do_not_mention_pictures(client: TestClient) -> None:
    for body in (DATA_URL, {"image": DATA_URL}, {"instances": [[1]]}):
        response = client.post("/predict/regressor", json=body)
        assert is_problem(response, 422, '"inputs"')
        assert "picture" not in response.text


VERSIONS = ["1.0", "01", "+1", "1e0", "-1", "0x1", "1 ", " 1", "", "one", "\u0661", "1,2", "None", "1_0"]


@pytest.mark.parametrize("number", VERSIONS)
def test_a_version_is_written_as_the_service_writes_it(client: TestClient, number: str) -> None:
    for path, body in (("/predict/regressor", {"inputs": [[1]]}), ("/explain/regressor", {"inputs": [[1]]})):
        assert is_problem(client.post(path, json=body, params={"version": number}), 422, "whole number")
    if number.strip():
        for path in ("/models/regressor/versions/{}", "/models/regressor/versions/{}/checkpoint"):
            assert client.get(path.format(number)).status_code == 422
        assert client.get(f"/v2/models/regressor/versions/{number}").status_code == 404


def test_a_version_is_given_once(client: TestClient) -> None:
    for path in ("/predict/regressor", "/explain/regressor"):
        for query in ("version=1&version=2", "version=1&version=1", "version=999&version=1"):
            assert is_problem(client.post(f"{path}?{query}", json={"inputs": [[1]]}), 422, "give it once")
        assert client.post(f"{path}?version=1", json={"inputs": [[1]]}).status_code == 200
        for number in (2, 999_999_999, 10**20):
            assert client.post(f"{path}?version={number}", json={"inputs": [[1]]}).status_code == 404
    for number in (2, 10**20):
        assert client.get(f"/models/regressor/versions/{number}").status_code == 404
    assert client.post("/models/regressor/promote", json={"version": 1.5}).status_code == 422


@pytest.mark.parametrize("time", ["2026-11-23T19:00:00+01:00", "2026-11-23T19:00+0100", "2026-11-23 19:00:00.5+01:00"])
def test_an_unescaped_plus_in_a_time_gets_an_error_that_says_how_to_escape_it(client: TestClient, time: str) -> None:
    path = "/models/regressor/promotions"
    assert is_problem(client.get(f"{path}?at={time}"), 422, "%2B")
    assert client.get(path, params={"at": time}).status_code == 200


@pytest.mark.parametrize(
    ("accept", "npy_wanted"),
    [
        ("application/x-npy", True),
        ("application/x-npy;q=0", False),
        ("application/x-npy; q=0.0, application/json", False),
        ("application/x-npy;q=0.1, application/json", False),
        ("application/x-npy;q=0.9, application/json;q=0.5", True),
        ("application/json, application/x-npy", True),
        ("text/html, application/x-npy;q=0.2", True),
        ("application/x-npy;q=junk", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_a_weight_of_zero_refuses_a_media_type(client: TestClient, accept: str, *, npy_wanted: bool) -> None:
    response = client.post("/predict/regressor", content=ROW, headers={"Accept": accept, "Content-Type": JSON})
    assert response.headers["content-type"] == ("application/x-npy" if npy_wanted else JSON)


@pytest.mark.parametrize("media_type", ["application/json", "application/x-npy"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_a_picture_declared_as_numbers_is_named(client: TestClient, media_type: str, kind: str) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(SEVEN)).save(file, kind)
    response = client.post("/predict/mnist", content=file.getvalue(), headers={"content-type": media_type})
    assert is_problem(response, 400, "the body is a picture.*image/png")
