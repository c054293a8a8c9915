"""The files of the web page as the service sends them; no browser needed."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from service.api.page import FOLDER
from service.settings import Key
from tests.colours import COLOURS, painted
from tests.fakes import LINE, ROOT, save_line
from tests.serving import png, serving

FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
KEYS = (Key(scope="predict", secret="p"), Key(scope="admin", secret="a"))  # noqa: S106


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("line")
    save_line(folder)
    with serving(folder, {"line": LINE}, api_keys=KEYS) as client:
        yield client


def test_s31_the_page_needs_no_key_and_has_a_content_security_policy(line: TestClient) -> None:
    for path in ("/", "/page/style.css"):
        response = line.get(path)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
    assert line.get("/models").status_code == 401


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_has_its_media_type_and_is_not_sent_twice(line: TestClient, path: Path) -> None:
    response = line.get(f"/page/{path.name}")
    assert response.content == path.read_bytes()
    assert response.headers["content-type"] == f"{TYPES[path.suffix]}; charset=utf-8"
    again = line.get(f"/page/{path.name}", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert line.head(f"/page/{path.name}").status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "%2e%2e%2fapp.py", ""])
def test_other_paths_below_page_are_404(line: TestClient, name: str) -> None:
    response = line.get(f"/page/{name}", headers={"Authorization": "Bearer a"})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_the_page_names_no_other_host_and_only_files_that_exist() -> None:
    names = {path.name for path in FILES}
    for path in FILES:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|(?<!:)//[a-z0-9-]+\.", text), path.name
        assert set(re.findall(r'from "\./([\w.]+)"|(?:src|href)="page/([\w.]+)"', text)) <= {
            pair for name in names for pair in ((name, ""), ("", name))
        }


def test_s31_the_page_makes_no_markup_of_text_and_holds_no_inline_code() -> None:
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
        assert len(text.splitlines()) <= 400
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", html)


def luminance(colour: str) -> float:
    """Of #rrggbb, as WCAG 2 defines it."""
    levels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(colours: dict[str, str], one: str, other: str) -> float:
    dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_in_either_scheme(scheme: str) -> None:
    """WCAG 2 AA: 4.5 for text, 3 for the lines of a plot."""
    light, dark = re.findall(r":root \{(.*?)\}", (FOLDER / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light + (dark if scheme == "dark" else "")))
    for ground in ("page", "card", "hover"):
        for text in ("text", "soft", "accent", "good", "bad", "warn"):
            assert contrast(colours, text, ground) >= 4.5, (text, ground)
    for text, ground in (("on-accent", "accent"), ("page", "text"), ("card", "bad")):
        assert contrast(colours, text, ground) >= 4.5, (text, ground)
    for line in range(4):
        assert contrast(colours, f"line-{line}", "card") >= 3, line


def test_preview_shows_colours_that_the_preprocessing_has_transposed(tmp_path: Path) -> None:
    path = tmp_path / "rgb.pt"
    sha256 = state_dict.save_weights(COLOURS["rgb"].network().state_dict(), path)
    state_dict.save_record(Record(model="rgb", sha256=sha256), path)
    entry = np.asarray(painted(255, 0, 0)).tolist()
    with serving(tmp_path, {"rgb": COLOURS["rgb"]}) as client:
        response = client.post("/preview/rgb", json={"inputs": [entry, entry]})
    assert response.status_code == 200
    samples = np.array(response.json()["samples"])
    assert samples.shape == (2, 3, 8, 8)
    assert samples[1, :, 0, 0].tolist() == [2, -2, -2]


def test_preview_shows_what_the_network_is_given() -> None:
    picture = (ROOT / "models" / "pretrained" / "seven.png").read_bytes()
    with serving() as client:
        (sample,) = client.post("/preview/mnist", content=picture, headers={"Content-Type": "image/png"}).json()[
            "samples"
        ]
        assert [len(sample), len(sample[0]), len(sample[0][0])] == [1, 28, 28]
        assert client.post("/preview/regressor", json={"inputs": [[0.5], ["x"]]}).json()["samples"][0] == [0.5]
        assert "error" in client.post("/preview/regressor", json={"inputs": [[0.5], ["x"]]}).json()["samples"][1]
        assert client.post("/preview/regressor", json={"inputs": [[0.5]] * 257}).status_code == 413
        assert client.post("/preview/nope", content=picture).status_code == 404
        blank = client.post("/preview/mnist", content=png(np.zeros((40, 40), np.uint8)))
        assert blank.status_code == 422
        assert "/preview/{model}" in client.get("/openapi.json").json()["paths"]


def test_preview_takes_a_key_that_predicts(line: TestClient) -> None:
    assert line.post("/preview/line", json={"inputs": [[1]]}).status_code == 401
    headers = {"Authorization": "Bearer p"}
    assert line.post("/preview/line", json={"inputs": [[1]]}, headers=headers).json()["samples"] == [[1]]
