"""Discovery of models and recipes: all modules of a package that define a given object. No list has to be edited."""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TypeVar

from models.spec import ModelSpec

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
PRETRAINED = Path(__file__).parent / "pretrained"  # the shipped checkpoints, NAME.pt and NAME.json
RESERVED = {"stats"}  # /v2/models/stats is a path of the Open Inference Protocol


def discover(package: str, attribute: str, kind: type[T]) -> dict[str, T]:
    """Map module names to their `attribute`, for each module of `package` that has one, in alphabetical order.

    Raises TypeError if the attribute is of another kind, ValueError if the file name cannot be a model name: it does
    not match NAME, or a folder of the package has it too, which Python would import instead.
    """
    found: dict[str, T] = {}
    for folder in map(Path, import_module(package).__path__):
        for path in sorted(folder.glob("*.py")):
            if path.with_suffix("").is_dir() and _contains(path, attribute):
                raise ValueError(f"{package}/{path.name}: the folder {package}/{path.stem}/ hides it; rename the file")
    for name in sorted(module.name for module in iter_modules(import_module(package).__path__) if not module.ispkg):
        if not _mentions(f"{package}.{name}", attribute):
            continue
        value = getattr(import_module(f"{package}.{name}"), attribute, None)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise TypeError(f"{package}/{name}.py: {attribute} is not a {kind.__name__}")
        if not NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(f"{package}/{name}.py: {name!r} cannot be a model name; it must match {NAME.pattern}")
        found[name] = value
    return found


def _mentions(module: str, attribute: str) -> bool:
    """Whether a module's source contains the word. Others are not imported, which may take seconds."""
    found = find_spec(module)
    return bool(found and found.origin and _contains(Path(found.origin), attribute))


def _contains(source: Path, word: str) -> bool:
    return bool(re.search(rf"\b{word}\b", source.read_text(encoding="utf-8")))


@cache
def specs() -> dict[str, ModelSpec]:
    """Map model names to specs, for each models/<name>.py that has a SPEC."""
    return discover("models", "SPEC", ModelSpec)
