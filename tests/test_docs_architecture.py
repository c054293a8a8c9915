"""The architecture page: its picture, its table of layers and its list of folders agree with the source."""

import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import pytest

from docs.draw_architecture import PACKAGES, boxes_of, draw, imports, joined, levels, modules, reduced, unit
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PICTURE = ROOT / "docs" / "architecture.svg"
GROUND = {"settings", "logs", "errors", "media_types"}


@cache
def used() -> dict[str, set[str]]:
    """Folder of service/ -> the folders and ground modules of service/ that it imports."""
    files = modules(ROOT)
    graph = joined(imports(files), {name: unit(name, files) for name in files})
    return {
        name.split(".")[1]: {target.split(".")[1] for target in targets if target.startswith("service.")}
        for name, targets in graph.items()
        if name.startswith("service.") and name.endswith("/")
    }


def test_the_picture_shows_the_imports_of_the_source() -> None:
    assert PICTURE.read_text() == draw(), "the imports have changed: run `make picture` and commit the result"


def test_the_picture_is_well_formed_and_no_arrow_runs_upward() -> None:
    ET.fromstring(PICTURE.read_text())  # noqa: S314 - our own file
    assert 'class="arrow up"' not in PICTURE.read_text()


def test_the_table_of_layers_allows_every_import_and_has_a_row_for_every_folder() -> None:
    table = PAGE.split("## Layers of service/")[1].split("\n## ")[0]
    rows = {
        name: set(re.findall(r"`(\w+)/`", cells))
        for name, cells in re.findall(r"^\| `(\w+)/` \|(.*)\|$", table, re.MULTILINE)
    }
    assert rows.keys() == {name.rstrip("/") for name in used()}
    for name, targets in used().items():
        allowed = set() if name == "client/" else rows[name.rstrip("/")] | GROUND
        assert {target.rstrip("/") for target in targets} <= allowed, name


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_described(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).glob("*/*") if path.suffix in {".py", ".js"}}
    assert folders
    for folder in folders:
        assert f"`{folder.name}/`" in PAGE, folder


def test_a_box_stands_above_what_it_imports_and_implied_arrows_are_left_out() -> None:
    graph = {"p.top": {"p.a/", "p.b/", "p.low"}, "p.a/": {"p.b/", "p.low"}, "p.b/": {"p.low"}, "p.low": set[str]()}
    assert levels(graph) == {"p.top": 3, "p.a/": 2, "p.b/": 1, "p.low": 0}
    assert reduced(graph) == [("p.a/", "p.b/"), ("p.b/", "p.low"), ("p.top", "p.a/")]


def test_modules_of_a_level_share_a_box_and_folders_have_their_own() -> None:
    graph = {"p.top": {"p.a/"}, "p.other": {"p.a/"}, "p.a/": {"p.low"}, "p.low": set[str]()}
    boxes, level = boxes_of("p", graph)
    assert boxes["p.top"] == boxes["p.other"] != boxes["p.low"]
    assert level == {boxes["p.top"]: 2, "p.a/": 1, boxes["p.low"]: 0}


def test_a_circle_of_imports_is_drawn_with_an_upward_arrow(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "one.py").write_text(f"from {package}.inner import two\n")
        (tmp_path / package / "inner" / "two.py").write_text(f"import {package}.one\n")
    assert 'class="arrow up"' in draw(tmp_path)
