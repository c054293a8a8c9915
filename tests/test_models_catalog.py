import json
import shutil
import subprocess
import sys
from os import mkfifo
from pathlib import Path

import pytest

from models import catalog
from models.catalog import Found
from models.checkpoints.files import digest_of_sources
from models.spec import ModelSpec
from tests.fakes import ROOT
from training.recipe import Recipe, discovered, recipes


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


def found(package: Path) -> Found[ModelSpec]:
    """What is found in the package `zoo`, with a good model beside the files of a test."""
    (package / "line.py").write_text(SPEC_LINE)
    everything = catalog.discover("zoo", "SPEC", ModelSpec)
    assert list(everything.usable) == ["line"]
    return everything


@pytest.mark.parametrize(
    ("module", "attribute", "kind"), [("models", "SPEC", ModelSpec), ("training", "RECIPE", Recipe)]
)
def test_no_file_of_the_checkout_is_left_aside(module: str, attribute: str, kind: type) -> None:
    assert catalog.discover(module, attribute, kind).left_aside == {}
    assert discovered().left_aside == {}


def test_only_modules_with_the_attribute_count(package: Path) -> None:
    (package / "words.py").write_text("x = 1\n")
    (package / "mentions.py").write_text("# SPEC\n")
    assert found(package).left_aside == {}


def test_an_attribute_of_another_kind_is_named(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    (package / "odd.py").write_text("SPEC = 3\n")
    assert found(package).left_aside == {"odd.py": "SPEC is not a ModelSpec"}
    assert caplog.messages == ["left aside: zoo/odd.py: SPEC is not a ModelSpec"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "stats",
            "Upper",
            "_hidden",
            "x" * 65,
            "line copy",
            "line (1)",
            "Kopie von line",
            "line.orig",
            "größe",
            "a+b",
        ),
        *(
            "line_BACKUP_4711",
            "line.sync-conflict-20260101-120000-ABCDEFG",
            "line (conflicted copy)",
            "-line",
            "%s",
            "{0}",
        ),
    ],
)
def test_a_file_name_that_can_be_no_model_name_is_left_aside(
    name: str, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (package / f"{name}.py").write_text(f"raise AssertionError\n{SPEC_LINE}")
    assert list(found(package).left_aside) == [f"{name}.py"]
    (message,) = caplog.messages
    assert message.startswith(
        f"left aside: zoo/{name}.py: {name!r} cannot be a model name; rename it to match [a-z0-9]"
    )


@pytest.mark.parametrize("marker", ["__init__.py", "notes.txt"])
def test_a_model_file_named_like_a_folder_of_the_package_is_left_aside(marker: str, package: Path) -> None:
    (package / "circle").mkdir()
    (package / "circle" / marker).touch()
    assert found(package).left_aside == {}
    (package / "circle.py").write_text(SPEC_LINE)
    assert found(package).left_aside == {"circle.py": "the folder zoo/circle/ hides it; rename the file"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nosuchmodule\nSPEC = 1\n", "line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("\nfrom models import nosuchname as SPEC\n", "line 2: ImportError: cannot import name 'nosuchname'"),
        ("SPEC = \n", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("def f(:\n  SPEC\n", "SyntaxError: "),
        ("SPEC = f(\n", "SyntaxError: '(' was never closed (broken.py, line 1)"),
        ("  SPEC = 1\n", "IndentationError: unexpected indent (broken.py, line 1)"),
        (
            "from models.spec import ModelSpec\nSPEC = ModelSpec(postproces=1)\n",
            "line 2: TypeError: ModelSpec.__init__() got an unexpected keyword argument 'postproces'",
        ),
        ("from tests.fakes import LINE\nSPEC = LINE\n1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        ("SPEC = open('/nosuchfile')\n", "line 1: FileNotFoundError: [Errno 2] No such file or directory"),
        ("import sys; SPEC = sys.exit('usage: ...')\n", "line 1: SystemExit: usage: ..."),
        ("def SPEC(): SPEC()\nSPEC()\n", "line 1: RecursionError: "),
        ("raise ValueError('two\\nlines')  # SPEC\n", "line 1: ValueError: two lines;"),
        ("import pytest\npytest.skip('no GPU', allow_module_level=True)  # SPEC\n", "line 2: Skipped: no GPU;"),
        ("raise ValueError(1000 * 'x')  # SPEC\n", f"line 1: ValueError: {288 * 'x'};"),
        ("raise GeneratorExit  # SPEC\n", "line 1: GeneratorExit;"),
        ("raise ValueError('\\ud800')  # SPEC\n", "line 1: ValueError: \\ud800;"),
        ("class Odd(Exception):\n  __str__ = None\nraise Odd  # SPEC\n", "line 3: Odd;"),
        ("SPEC = '\0'\n", "S"),
        ("SPEC = 'gr\xf6\xdfe'\n", "SyntaxError: "),
    ],
)
def test_a_file_that_cannot_be_imported_takes_no_other_down(
    source: str, reason: str, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (package / "broken.py").write_bytes(source.encode("latin-1"))
    assert list(found(package).left_aside) == ["broken.py"]
    (message,) = caplog.messages
    assert message.startswith(f"left aside: zoo/broken.py: {reason}")
    assert message.endswith("; python -c 'import zoo.broken' prints the traceback")
    assert "\n" not in message


def test_a_source_in_another_encoding_is_read(package: Path) -> None:
    source = "# coding: latin-1\nfrom tests.fakes import LINE as SPEC  # größe\n"
    (package / "circle.py").write_bytes(source.encode("latin-1"))
    assert list(catalog.discover("zoo", "SPEC", ModelSpec).usable) == ["circle"]


LEFT = [
    *(".#line.py", "._line.py", ".line.py.swp", "line.py~", "#line.py#", "line.py.orig", "line.pyc", ".line.py"),
    *(".ipynb_checkpoints/line-checkpoint.py", ".git/line.py", "line.ipynb", "4913", "line.py.rej", "line.PY", ".py"),
]


@pytest.mark.parametrize("kind", ["text", "bytes", "link to nowhere"])
@pytest.mark.parametrize("name", LEFT)
def test_files_of_editors_and_systems_change_nothing(
    name: str, kind: str, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = found(package), digest_of_sources(package.parent, "zoo")
    path = package / name
    path.parent.mkdir(exist_ok=True)
    if kind == "link to nowhere":
        path.symlink_to("someone@example.1234:1700000000")
    else:
        path.write_bytes(b"\0\5\x16\7 SPEC \xff" if kind == "bytes" else SPEC_LINE.encode())
    assert (found(package), digest_of_sources(package.parent, "zoo")) == before
    assert caplog.messages == []


def test_a_link_to_nowhere_with_a_usual_name_is_left_aside(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    (package / "gone.py").symlink_to("nowhere")
    (package / "folder.py").mkdir()
    assert found(package).left_aside == {"gone.py": "it cannot be read (No such file or directory)"}
    assert len(caplog.messages) == 1
    assert digest_of_sources(package.parent, "zoo")


def test_a_named_pipe_is_left_aside(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    mkfifo(package / "pipe.py")  # reading it would wait for a writer
    assert found(package).left_aside == {"pipe.py": "it is not a regular file"}
    assert len(caplog.messages) == 1
    assert digest_of_sources(package.parent, "zoo")


@pytest.mark.slow  # imports torch in a process of its own
def test_a_recipe_without_a_model_is_left_aside_in_the_command_line_and_the_schemas(tmp_path: Path) -> None:
    for name in ("models", "training"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models" / "mnist.py").write_text("import nosuchmodule\nSPEC = 1\n")
    (tmp_path / "training" / "classifier.py").write_text("import nosuchmodule\nRECIPE = 1\n")
    words = [sys.executable, "-m", "training", "--schemas"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    schemas = json.loads(done.stdout)
    assert schemas.keys() == recipes().keys()
    assert {name for name, schema in schemas.items() if "fault" in schema} == {"classifier", "mnist"}
    assert sorted(line.split(": ")[1] for line in done.stderr.splitlines()) == [
        "models/mnist.py",
        "training/classifier.py",
        "training/mnist.py",
    ]
