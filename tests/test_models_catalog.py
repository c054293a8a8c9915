import sys
from pathlib import Path

import pytest

from models import catalog
from models.spec import ModelSpec


def test_the_shipped_models_are_found_by_their_file_names() -> None:
    assert {"regressor", "classifier", "mnist"} <= set(catalog.specs())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "zoo"


SPEC_LINE = "from tests.fakes import LINE as SPEC\n"


def test_only_modules_with_the_attribute_count(package: Path) -> None:
    (package / "line.py").write_text(SPEC_LINE)
    (package / "words.py").write_text("x = 1\n")
    assert list(catalog.discover("zoo", "SPEC", ModelSpec)) == ["line"]


def test_an_attribute_of_another_kind_is_named(package: Path) -> None:
    (package / "odd.py").write_text("SPEC = 3\n")
    with pytest.raises(TypeError, match=r"zoo/odd\.py: SPEC is not a ModelSpec"):
        catalog.discover("zoo", "SPEC", ModelSpec)


@pytest.mark.parametrize("name", ["stats", "Upper", "_hidden", "x" * 65])
def test_a_file_name_that_can_be_no_model_name_is_named(name: str, package: Path) -> None:
    (package / f"{name}.py").write_text(SPEC_LINE)
    with pytest.raises(ValueError, match=name):
        catalog.discover("zoo", "SPEC", ModelSpec)


@pytest.mark.parametrize("marker", ["__init__.py", "notes.txt"])
def test_a_model_file_named_like_a_folder_of_the_package_is_refused(marker: str, package: Path) -> None:
    (package / "line").mkdir()
    (package / "line" / marker).touch()
    assert catalog.discover("zoo", "SPEC", ModelSpec) == {}
    (package / "line.py").write_text(SPEC_LINE)
    with pytest.raises(ValueError, match=r"zoo/line\.py: the folder zoo/line/ hides it; rename the file"):
        catalog.discover("zoo", "SPEC", ModelSpec)
