"""Checks of docs/security.md itself, and of promises without another test."""

import re
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.fakes import ROOT
from tests.hostile import all_of_them
from tests.requirements import LOCK, PROJECT

FLOORS = {"torch": "2.10", "starlette": "1.3.1", "python-multipart": "0.0.27", "pillow": "12.3", "h11": "0.16"}
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_s06_s25_s27_s28_s30_s33_floors_are_declared_locked_and_installed(package: str, floor: str) -> None:
    declared = {item.name: item for item in map(Requirement, PROJECT["dependencies"])}
    lowest = min(Version(at.version) for at in declared[package].specifier if at.operator in {">=", "=="})
    assert lowest >= Version(floor)
    assert Version(LOCK[package]) >= Version(floor)
    assert Version(version(package)) >= Version(floor)


def test_every_test_that_the_page_names_is_there() -> None:
    for name, more in re.findall(r"`(test_\w+?)(\.\.\.)?`", PAGE):
        assert f"def {name}{'' if more else '('}" in TESTS, name


def test_every_row_of_the_page_has_a_test_of_its_number_and_every_such_test_a_row() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3].count("|") == 1
    ]
    rows = rows[2:]  # after the head
    assert [row[0] for row in rows] == [f"{number:02}" for number in range(1, len(rows) + 1)]
    for number, *_, last in rows:
        assert re.search(rf"`test_\w*s{number}_|does not apply: \w", last), number
    numbers = {
        number for name in re.findall(r"def test_((?:s\d\d_)+)", TESTS) for number in re.findall(r"s(\d\d)", name)
    }
    assert numbers == {row[0] for row in rows if "`test_" in row[-1]}
    for name in re.findall(r"def (test_(?:s\d\d_)+\w+)", TESTS):
        assert f"`{name}`" in PAGE or f"`{name[:8]}_...`" in PAGE, name


@pytest.mark.slow  # makes them all
def test_every_input_that_the_page_names_is_sent() -> None:
    names = {hostile.name for hostile in all_of_them()}
    kinds = [name for row in re.findall(r'list ("[^|]+)\|', PAGE) for name in re.findall(r'"([^"]+)"', row)]
    assert kinds
    for kind in kinds:
        assert any(kind.strip(".") in name for name in names), kind
