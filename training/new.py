"""Command `torchloop new`: write the files of a new model, which can be trained and served as they are.

The files are copies of those in training/templates. A template KIND_model.py becomes models/NAME.py, KIND_network.py
models/NAME_network.py, KIND_recipe.py training/NAME.py and KIND_test.py tests/test_NAME.py.
"""

import argparse
import keyword
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from models import project
from models.catalog import RESERVED
from models.project import ProjectError, modules_of_ours

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_PLACES = {
    "model": "models/{}.py",
    "network": "models/{}_network.py",
    "recipe": "training/{}.py",
    "test": "tests/test_{}.py",
}


def kinds() -> list[str]:
    """Return the kinds of models for which there are templates."""
    return sorted(path.name.removesuffix("_model.py") for path in _TEMPLATES.glob("*_model.py"))


def files(name: str, kind: str) -> dict[str, str]:
    """Return the contents of the new files, by their paths in the project folder."""
    found = {part: _TEMPLATES / f"{kind}_{part}.py" for part in _PLACES}
    return {
        _PLACES[part].format(name): path.read_text()
        .replace(f"training.templates.{kind}_network", f"models.{name}_network")
        .replace(f"training.templates.{kind}_model", f"models.{name}")
        .replace("NAME", name)
        for part, path in found.items()
        if path.exists()
    }


def fault_of(name: str) -> str:
    """Say why a model cannot have this name; empty if it can."""
    if not _NAME.fullmatch(name):
        return f"{name!r} cannot be the name of a module: use lower-case letters, digits and _, and begin with a letter"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return f"{name} is a word of Python: choose another name"
    if name in RESERVED or name in modules_of_ours("models") | modules_of_ours("training"):
        return f"{name} is the name of a model or module that exists: choose another name"
    return ""


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write the files. Raises ProjectError if one of them exists, before anything is written."""
    for name in contents:
        if os.path.lexists(folder / name):
            raise ProjectError(f"{name} exists already: choose another name, or remove the file")
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(content)


def main(words: Sequence[str] | None = None, *, prog: str = "python -m training.new") -> int:
    """Write the files. Returns the exit status: 1 if they cannot be written, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog=prog, description="Write a spec, a recipe and a test of a new model.")
    parser.add_argument("name", metavar="NAME", help="the name of the model: of its files, its route, its command")
    parser.add_argument("--kind", choices=kinds(), default="rows", help="what the model takes [%(default)s]")
    project.add_option(parser)
    try:
        options = parser.parse_args(project.take_option(sys.argv[1:] if words is None else words))
        folder = project.of(os.environ).folder or Path.cwd()
    except ProjectError as err:
        return _refuse(str(err), 2)
    if fault := fault_of(options.name):
        return _refuse(fault, 2)
    contents = files(options.name, options.kind)
    try:
        write(folder, contents)
    except ProjectError as err:
        return _refuse(str(err), 1)
    name, where = options.name, f"--project {shlex.quote(str(folder))}"
    lines = [
        *(f"wrote {folder / path}" for path in contents),
        f"try it:   torchloop check {where} {name}",
        f"train it: torchloop train {where} {name} --output {shlex.quote(f'{folder}/pretrained/{name}.pt')}",
        f"serve it: torchloop serve {where}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _refuse(reason: str, status: int) -> int:
    sys.stderr.write(f"torchloop: {reason}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
