"""Discovery of models and recipes: all modules of a package that define a given object. No list has to be edited."""

import logging
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from traceback import walk_tb
from typing import Generic, TypeVar

from models.checkpoints.files import sources
from models.spec import ModelSpec

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
PRETRAINED = Path(__file__).parent / "pretrained"  # the shipped checkpoints, NAME.pt and NAME.json
RESERVED = {"stats"}  # /v2/models/stats is a path of the Open Inference Protocol
log = logging.getLogger(__name__)


class CatalogError(Exception):
    """A file that cannot be a model or recipe, and the way out."""


@dataclass(frozen=True)
class Found(Generic[T]):
    """The usable objects by model name, and the files left aside, each with the reason."""

    usable: dict[str, T]
    left_aside: dict[str, str]


def discover(package: str, attribute: str, kind: type[T]) -> Found[T]:
    """Import each module of `package` that mentions `attribute`, and collect these, in alphabetical order.

    A file that cannot be used takes no other down: it is left aside, with a line in the log. Its name cannot be a model
    name, a folder hides it, its import fails, or its attribute is of another kind. Hidden files are skipped.
    """
    found: Found[T] = Found({}, {})
    folders = map(Path, import_module(package).__path__)
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
        except CatalogError as err:
            reason = str(err)
        except (Exception, SystemExit) as err:  # noqa: BLE001 - a model author's code: it may raise anything
            reason = f"{_in_words(err, path)}; python -c 'import {package}.{path.stem}' prints the traceback"
        if reason:
            log.error("left aside: %s/%s: %s", package, path.name, reason)
            found.left_aside[path.name] = reason
    return found


def _mentions(path: Path, attribute: str) -> bool:
    """Whether a module's source contains the word. Others are not imported, which may take seconds."""
    try:
        return bool(re.search(rf"\b{attribute}\b".encode(), path.read_bytes()))
    except OSError as err:
        raise CatalogError(f"it cannot be read ({err.strerror})") from err


def _check_name(package: str, path: Path) -> None:
    """Raise CatalogError if the file name cannot be a model name: it does not match NAME, or a folder has it too."""
    if not NAME.fullmatch(path.stem) or path.stem in RESERVED:
        raise CatalogError(f"{path.stem!r} cannot be a model name; rename it to match {NAME.pattern}")
    if path.with_suffix("").is_dir():  # which Python would import instead
        raise CatalogError(f"the folder {package}/{path.stem}/ hides it; rename the file")


def _in_words(err: BaseException, path: Path) -> str:
    """Return an error in one line, with the line of the file that led to it."""
    text = " ".join(f"{type(err).__name__}: {err}".split())
    lines = [number for frame, number in walk_tb(err.__traceback__) if Path(frame.f_code.co_filename) == path]
    return f"line {lines[-1]}: {text}" if lines else text


@cache
def specs() -> dict[str, ModelSpec]:
    """Map model names to specs, for each models/<name>.py that has a SPEC."""
    return discover("models", "SPEC", ModelSpec).usable
