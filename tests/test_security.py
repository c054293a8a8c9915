"""What docs/security.md promises and no other test holds."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.fakes import ROOT
from tests.hostile import all_of_them
from tests.test_repository import LOCK, PROJECT

FLOORS = {"torch": "2.10", "starlette": "1.3.1", "python-multipart": "0.0.27", "pillow": "12.3", "h11": "0.16"}
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_security_floors_are_declared(package: str, floor: str) -> None:
    declared = {item.name: item for item in map(Requirement, PROJECT["dependencies"])}
    lowest = min(Version(at.version) for at in declared[package].specifier if at.operator in {">=", "=="})
    assert lowest >= Version(floor)
    assert Version(LOCK[package]) >= Version(floor)


def test_every_test_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`(test_\w+?)(?:\.\.\.)?`", PAGE):
        assert f"def {name}" in TESTS, name


def test_every_input_that_the_page_names_is_sent() -> None:
    names = {hostile.name for hostile in all_of_them()}
    kinds = [name for row in re.findall(r'list ("[^|]+)\|', PAGE) for name in re.findall(r'"([^"]+)"', row)]
    assert kinds
    for kind in kinds:
        assert any(kind.strip(".") in name for name in names), kind
