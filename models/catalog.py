"""Discovery of models and recipes: all modules of a package that define a given object. No list has to be edited."""

import ast
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Generic, TypeVar

from models import project
from models.checkpoints.code import missing_class
from models.checkpoints.files import sources
from models.errors import said, without_folders
from models.project import Project
from models.spec import ModelSpec

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
PRETRAINED = Path(__file__).parent / "pretrained"  # the shipped checkpoints, NAME.pt and NAME.json
_MOST = 300  # characters of an error of a model author's code
RESERVED = {"stats"}  # /v2/models/stats is a path of the Open Inference Protocol
log = logging.getLogger(__name__)


class CatalogError(Exception):
    """A file that cannot be a model or recipe, and the way out."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """The usable objects by model name, and the files left aside, each with the reason."""

    usable: dict[str, T]
    left_aside: dict[str, str]

    def faults(self, package: str) -> dict[str, str]:
        """Map the model names of the files left aside to the file and the reason."""
        stems = {Path(name).stem: f"{package}/{name}: {reason}" for name, reason in sorted(self.left_aside.items())}
        return {stem: fault for stem, fault in stems.items() if NAME.fullmatch(stem)}


class Specs(dict[str, ModelSpec]):
    """The usable specs by model name. `faults` says why other models cannot serve, with the file and line."""

    def __init__(self, usable: Mapping[str, ModelSpec], faults: Mapping[str, str]) -> None:
        super().__init__(usable)
        self.faults = dict(faults)


def discover(package: str, attribute: str, kind: type[T], of: Project | None = None) -> Found[T]:
    """Import each module of `package` that mentions `attribute`, and collect these, in alphabetical order.

    The modules are ours and those of the project folder `of`, by default the one that the environment names.

    A file that cannot be used takes no other down: it is left aside, with a line in the log. Its name cannot be a model
    name, a folder hides it, its import fails, its attribute is of another kind, or it makes such an object under
    another name. Hidden files are skipped.
    """
    found: Found[T] = Found({}, {})
    within = project.of(os.environ) if of is None else of
    folders = within.mount(package)
    paths = [path for folder in folders for path in sources(folder) if path.parent == folder]
    for path in sorted(paths, key=lambda path: path.stem):
        reason = ""
        try:
            if _mentions(path, attribute):
                _check_name(package, path)
                value = getattr(import_module(f"{package}.{path.stem}"), attribute, None)
                if isinstance(value, kind):
                    found.usable[path.stem] = value
                elif value is not None:
                    reason = f"{attribute} is not a {kind.__name__}"
                else:
                    reason = _misnamed(path, attribute, kind)
            else:
                reason = _misnamed(path, attribute, kind)
        except CatalogError as err:
            reason = str(err)
        except KeyboardInterrupt:
            raise
        except BaseException as err:  # noqa: BLE001 - a model author's code: pytest.importorskip raises one
            reason = f"{_in_words(err, path)}; {_importing(package, path, within)} prints the traceback"
        if reason:
            leave_aside(found, package, path.name, reason)
    return found


def _mentions(path: Path, attribute: str) -> bool:
    """Whether a module's source contains the word. Others are not imported, which may take seconds."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a named pipe would wait for a writer
            raise CatalogError("it is not a regular file")
        return bool(re.search(rf"\b{attribute}\b".encode(), path.read_bytes()))
    except OSError as err:
        raise CatalogError(f"it cannot be read ({err.strerror})") from err


def leave_aside(found: Found[T], package: str, file: str, reason: str) -> None:
    """Note that a file cannot be used, and log why."""
    log.error("left aside: %s/%s: %s", package, file, reason)
    found.usable.pop(Path(file).stem, None)
    found.left_aside[file] = reason


def _misnamed(path: Path, attribute: str, kind: type) -> str:
    """Return the reason if a module makes an object of the kind under another name than `attribute`; else empty."""
    content = path.read_bytes()
    if f"{kind.__name__}(".encode() not in content:
        return ""
    try:
        statements = ast.parse(content).body
    except (SyntaxError, ValueError):  # it does not mention the attribute: it may be no model at all
        return ""
    for statement in statements:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=called)))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(id=called)))
            ) if called == kind.__name__:
                return f"line {statement.lineno}: {name} = {called}(...) is not found: name it {attribute}"
    return ""


def _check_name(package: str, path: Path) -> None:
    """Raise CatalogError if the file name cannot be a model name: it does not match NAME, or a folder has it too."""
    if not NAME.fullmatch(path.stem) or path.stem in RESERVED:
        raise CatalogError(f"{path.stem!r} cannot be a model name; rename it to match {NAME.pattern}")
    if path.with_suffix("").is_dir():  # which Python would import instead
        raise CatalogError(f"the folder {package}/{path.stem}/ hides it; rename the file")


def _in_words(err: BaseException, path: Path) -> str:
    """Return an error in one line, with the line of the file that led to it."""
    text = without_folders(": ".join(filter(None, [type(err).__name__, " ".join(said(err).split())])))[:_MOST]
    lines = [number for frame, number in walk_tb(err.__traceback__) if Path(frame.f_code.co_filename) == path]
    return f"line {lines[-1]}: {text}" if lines else text


def _importing(package: str, path: Path, within: Project) -> str:
    """Return a command that imports a file. Python alone does not find those of a project folder."""
    if within.folder is not None and path.is_relative_to(within.folder):
        return f"torchloop check {path.stem}"
    return f"python -c 'import {package}.{path.stem}'"


def specs(of: Project | None = None) -> Specs:
    """Map model names to specs, for each models/<name>.py that has a SPEC: ours, and those of the project folder `of`.

    By default it is the folder that the environment names. Raises ProjectError.
    """
    return _specs(project.of(os.environ) if of is None else of)


@cache
def _specs(of: Project) -> Specs:
    found = discovered(of)
    return Specs(found.usable, found.faults("models"))


def discovered(of: Project | None = None) -> Found[ModelSpec]:
    """Find the specs, and the files that were left aside. Raises ProjectError."""
    found = discover("models", "SPEC", ModelSpec, of)
    for name, spec in list(found.usable.items()):
        if fault := missing_class(spec.network):
            leave_aside(found, "models", f"{name}.py", fault.removeprefix(f"models/{name}.py, "))
    return found
